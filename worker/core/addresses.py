"""Which network addresses count as public: what may be reached when somebody else chose the address."""

import ipaddress

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether an IP address, as resolved, is out on the Internet: not loopback, private, link-local or special."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # IPv6 forms that a gateway on the way may turn into the IPv4 address they carry.
        carried = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            carried = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        ip = carried or ip
    return ip.is_global and not ip.is_multicast


def allowed_privately(host: str, port: int, allow: str) -> bool:
    """Whether `DREAMERY_FETCH_ALLOW` (`allow`: a comma list of host or host:port) names this place."""
    allowed = {item.strip().lower() for item in allow.split(",") if item.strip()}
    return host.lower() in allowed or f"{host.lower()}:{port}" in allowed
