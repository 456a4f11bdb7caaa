"""AWS signature version 4: AWS's published vectors and those of the upload gateways."""

import pytest

from worker.sandbox.uploads.sigv4 import (
    Authorization,
    canonical_query,
    canonical_request,
    read_authorization,
    signature,
)

AWS_SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
GATEWAY_SECRET = "SYNTHETIC/secret+key/0001"
TOKEN = "STS2SYNTHETICSESSIONTOKEN0001"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("Param2=value2&Param1=value1", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
    ],
)
def test_aws_vectors(query, expected):
    claim = Authorization("AKIDEXAMPLE", "20150830", "us-east-1", "service", ("host", "x-amz-date"), "")
    headers = {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z"}
    text = canonical_request("GET", query, headers, claim.names, b"")
    assert signature(text, secret=AWS_SECRET, stamp="20150830T123600Z", claim=claim) == expected


@pytest.mark.parametrize(
    ("method", "query", "body", "extra", "expected"),
    [
        (
            "GET",
            "Action=ApplyImageUpload&FileSize=1048576&ServiceId=tb4s082cfz&Version=2018-08-01",
            b"",
            (),
            "4bdc6f4eb237a22d94ec56668f24d12db579b2f89730f6650c205fae09991fbd",
        ),
        (
            "POST",
            "Action=CommitImageUpload&ServiceId=tb4s082cfz&Version=2018-08-01",
            b'{"SessionKey":"U1lOVEhFVElDX1NFU1NJT05fS0VZ"}',
            ("x-amz-content-sha256",),
            "e5b8abca1ed8b76cbd0788aa711a5e1b093eaf1cc1e77d588174909c4c55c10a",
        ),
    ],
)
def test_upload_gateway_vectors(method, query, body, extra, expected):
    names = (*extra, "x-amz-date", "x-amz-security-token")
    header = (
        "AWS4-HMAC-SHA256 Credential=AKTPSYNTHETICACCESSKEY0001/20231114/cn-north-1/imagex/aws4_request, "
        f"SignedHeaders={';'.join(names)}, Signature={expected}"
    )
    claim = read_authorization(header)
    headers = {
        "x-amz-date": "20231114T221320Z",
        "x-amz-security-token": TOKEN,
        "x-amz-content-sha256": "b619c70ccc15a836256325f2551b4005d35e9964e172824396173d9fba9476ef",
    }
    text = canonical_request(method, query, headers, claim.names, body)
    assert signature(text, secret=GATEWAY_SECRET, stamp="20231114T221320Z", claim=claim) == claim.signature


def test_canonical_query_is_sorted_and_encoded():
    assert canonical_query("b=2&a=%E4%BD%A0+x&a=/&c") == "a=%2F&a=%E4%BD%A0%20x&b=2&c="


@pytest.mark.parametrize("header", ["", "Bearer x", "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=x, Signature=y"])
def test_malformed_authorization_returns_none(header):
    assert read_authorization(header) is None
