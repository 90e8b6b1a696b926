"""What boto3 raises, as errors of ours: one line each, with what to do."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from boto3.exceptions import Boto3Error, S3UploadFailedError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    SSLError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from urllib3.exceptions import HTTPError

from worker.contract.errors import (
    ObjectNotFound,
    StorageDenied,
    StorageError,
    StorageFull,
    StorageUnavailable,
)

FOREIGN = (BotoCoreError, ClientError, Boto3Error, HTTPError, RecursionError)
"""All that boto3 may raise for a request; a redirect that says no region sends it in circles."""

CUT = (HTTPClientError, IncompleteReadError, FlexibleChecksumError, HTTPError)
"""What is raised while a body is read: botocore retries requests, not bodies."""

_READING = ("GetObject", "HeadObject")
_SILENT = (BotoConnectionError, HTTPClientError, IncompleteReadError, HTTPError)
_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, TokenRetrievalError)
_FULL = frozenset(
    {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientStorage"}
)
_DENIED = frozenset(
    {"AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"}
)
_ELSEWHERE = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect", "301"})
_BUSY_STATUSES = frozenset({429, 500, 502, 503, 504})
_BUSY = frozenset({"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling"})
_CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
_NO_S3 = "if it is no S3 server, correct DECONVOY_S3_ENDPOINT_URL"
_MAX_MESSAGE = 200


def storage_error(error: BaseException, what: str, uri: str, endpoint: str) -> StorageError:
    """The error of ours that says what `error` means.

    `what` failed ("cannot read s3://bucket/key"), with the object or prefix `uri`, at `endpoint`.
    """
    if isinstance(error, S3UploadFailedError) and error.__context__ is not None:
        error = error.__context__
    endpoint = _shown(endpoint)
    if isinstance(error, ClientError):
        return _refusal(error, what, uri, endpoint)
    if isinstance(error, _NO_CREDENTIALS):
        return StorageDenied(f"{what}: {_line(error)}; set {_CREDENTIALS}")
    if _is_unverified(error):
        return StorageError(
            f"{what}: the certificate of {endpoint} cannot be verified; "
            "name a file with its authority in DECONVOY_S3_CA_BUNDLE"
        )
    if is_silence(error):
        return StorageUnavailable(
            f"{what}: {_reason(error)} {endpoint}, after all attempts; "
            "check the network and DECONVOY_S3_ENDPOINT_URL, and try again"
        )
    if isinstance(error, FlexibleChecksumError):
        return StorageError(
            f"{what}: the bytes do not fit their checksum; if this server sends none that can be checked, "
            "set DECONVOY_S3_CHECKSUMS=when_required"
        )
    if isinstance(error, RecursionError):
        return StorageError(f"{what}: {endpoint} redirects without an end; {_NO_S3}")
    return StorageError(f"{what}: {_line(error)}")


def is_silence(error: BaseException | None) -> bool:
    """Whether no answer came, or not all of it: that may be otherwise the next time."""
    return isinstance(error, _SILENT) and not _is_unverified(error)


def is_busy(status: int, code: str) -> bool:
    """Whether the server answered that it cannot do now what it was asked."""
    return status in _BUSY_STATUSES or code in _BUSY


def code_of(error: ClientError) -> str:
    """The code that the server gave, such as `NoSuchKey`; the status where it gave none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """The HTTP status of the answer."""
    return int(_metadata(error).get("HTTPStatusCode", 0))


def retries_of(error: ClientError) -> int:
    """How many attempts botocore had made before the one that was answered with this error."""
    return int(_metadata(error).get("RetryAttempts", 0))


def _metadata(error: ClientError) -> dict[str, Any]:
    return dict(error.response.get("ResponseMetadata", {}))


def _refusal(error: ClientError, what: str, uri: str, endpoint: str) -> StorageError:
    code, status = code_of(error), status_of(error)
    answer = _line(f"{code}: {error.response.get('Error', {}).get('Message', '')}")
    if code == "NoSuchBucket":
        return StorageError(
            f"{what}: there is no such bucket at {endpoint}; create it, or correct the name or "
            "DECONVOY_S3_ENDPOINT_URL"
        )
    if status == 404 and error.operation_name in _READING:
        return ObjectNotFound(f"there is no object {uri}")
    if status == 507 or code in _FULL:
        return StorageFull(f"{what}: {answer}; free some space or raise the quota, and resume the job")
    if code == "RequestTimeTooSkewed":
        return StorageDenied(f"{what}: this machine's clock and that of {endpoint} differ; set the clock")
    if status in (401, 403) or code in _DENIED:
        return StorageDenied(
            f"{what}: {answer}; check the credentials ({_CREDENTIALS}) and their rights on the bucket"
        )
    if code in _ELSEWHERE:
        return StorageError(f"{what}: {answer}; set AWS_DEFAULT_REGION to the region of the bucket")
    if is_busy(status, code):
        return StorageUnavailable(
            f"{what}: {endpoint} answered {status} ({answer}), after {retries_of(error) + 1} attempts; "
            f"try again when it is less busy; {_NO_S3}"
        )
    return StorageError(f"{what}: {endpoint} answered {status} ({answer}); {_NO_S3}")


def _is_unverified(error: BaseException | None) -> bool:
    return isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error)


def _reason(error: BaseException) -> str:
    if isinstance(error, EndpointConnectionError):
        return "cannot connect to"
    if isinstance(error, ConnectTimeoutError | ReadTimeoutError):
        return "no answer in time from"
    if isinstance(error, SSLError):
        return "cannot speak TLS with"
    return "the connection was cut by"


def _line(text: object) -> str:
    return " ".join(str(text).split())[:_MAX_MESSAGE]


def _shown(endpoint: str) -> str:
    """The endpoint without a user name and password, should it have any."""
    parts = urlsplit(endpoint)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
