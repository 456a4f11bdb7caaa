"""Why Redis could not be used, in words: also when a library wraps the error of another."""

import ssl

import pytest
import redis
from kombu.exceptions import OperationalError
from redis.exceptions import MaxConnectionsError, OutOfMemoryError
from redis.sentinel import MasterNotFoundError

from worker.messaging.redis_errors import explain, find_wrong_setting


def wrapped(error: Exception) -> Exception:
    """As kombu raises it."""
    outer = OperationalError(str(error))
    outer.__cause__ = error
    return outer


def untrusted(message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, f"certificate verify failed: {message}")
    error.verify_message = message
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "its memory is full"),
        (redis.ReadOnlyError("You can't write against a read only replica."), "a read-only replica"),
        (redis.ConnectionError("The previous master is now a slave"), "a read-only replica"),
        (redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"), "cannot save its data to disk"),
        (redis.ResponseError("NOREPLICAS Not enough good replicas to write."), "fewer replicas"),
        (redis.ResponseError("MASTERDOWN Link with MASTER is down"), "lost its primary"),
        (redis.ResponseError("BUSY Redis is busy running a script."), "busy with a script"),
        (redis.BusyLoadingError("Redis is loading the dataset in memory"), "loading its data"),
        (redis.exceptions.NoPermissionError("this user has no permissions"), "its user lacks rights"),
        (redis.AuthenticationError("invalid username-password pair"), "refuses its user or password"),
        (MaxConnectionsError("Too many connections"), "no more connections"),
        (redis.ConnectionError("max number of clients reached"), "no more connections"),
        (MasterNotFoundError("No master found for 'main'"), "know no primary"),
        (redis.ResponseError("WRONGTYPE Operation against a key"), "Redis refuses a command: WRONGTYPE"),
        (untrusted("self-signed certificate in certificate chain"), "name the file of its CA with ssl_ca_certs"),
        (untrusted("Hostname mismatch, certificate is not valid for 'a'."), "use the name that the certificate"),
        (redis.ConnectionError("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]"), "ssl_certfile and ssl_keyfile"),
        (redis.TimeoutError("Timeout reading from socket"), "Redis does not respond"),
        (ConnectionRefusedError(111, "Connection refused"), "Redis does not respond"),
        (AttributeError("closed"), "AttributeError"),
    ],
)
def test_reasons(error: Exception, words: str) -> None:
    assert words in explain(error)
    assert words in explain(wrapped(error)) or isinstance(error, AttributeError)


def test_only_what_can_never_work_is_a_wrong_setting() -> None:
    for error in (redis.TimeoutError(), redis.ReadOnlyError(), OutOfMemoryError(), redis.BusyLoadingError()):
        assert find_wrong_setting(error) == ""
    assert "user or password" in find_wrong_setting(redis.AuthenticationError("x"))
    assert "/0" in find_wrong_setting(redis.ResponseError("DB index is out of range"))
    assert "ssl_ca_certs" in find_wrong_setting(wrapped(untrusted("unable to get local issuer certificate")))
