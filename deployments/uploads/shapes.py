"""How each store says that a file was put into it. Facts about others: each shape is what its store documents.

A shape gives its arrival, or None where it tells of something else that was understood, such as a removal.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import unquote_plus

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from deployments.uploads.arrival import Arrival

Text = Annotated[str, StringConstraints(min_length=1)]

_BLOB = re.compile(r"/containers/([^/]+)/blobs/(.+)", re.DOTALL)


class _Shape(BaseModel):
    """What a shape needs of a message; everything else in it is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _S3Bucket(_Shape):
    name: Text


class _S3Object(_Shape):
    key: Text
    version_id: str | None = Field(None, validation_alias="versionId")
    sequencer: str | None = None
    etag: str | None = Field(None, validation_alias="eTag")


class _S3Entity(_Shape):
    bucket: _S3Bucket
    object: _S3Object


class S3Record(_Shape):
    """One of the `Records` of S3's own notifications, and of MinIO's, which say `s3:` before the event's name.

    The key is encoded as in a form: `+` is a space.
    """

    name: Text = Field(validation_alias="eventName")
    time: str | None = Field(None, validation_alias="eventTime")
    entity: _S3Entity = Field(validation_alias="s3")

    def arrival(self) -> Arrival | None:
        """Of `ObjectCreated:…`; by any of Put, Post, Copy and CompleteMultipartUpload the file is whole."""
        if not self.name.removeprefix("s3:").startswith("ObjectCreated:"):
            return None
        stored = self.entity.object
        version = _version(stored.version_id, stored.sequencer, f"{stored.etag}@{self.time}")
        return Arrival("s3", self.entity.bucket.name, unquote_plus(stored.key), version)


class _BridgeObject(_Shape):
    key: Text
    version_id: str | None = Field(None, validation_alias="version-id")
    sequencer: str | None = None
    etag: str | None = None


class _BridgeDetail(_Shape):
    bucket: _S3Bucket
    object: _BridgeObject


class BridgeEvent(_Shape):
    """S3's events by way of EventBridge; here the key is as it is, not encoded."""

    kind: Text = Field(validation_alias="detail-type")
    source: Text
    time: str | None = None
    detail: _BridgeDetail

    def arrival(self) -> Arrival | None:
        """Of `Object Created`."""
        if (self.source, self.kind) != ("aws.s3", "Object Created"):
            return None
        stored = self.detail.object
        version = _version(stored.version_id, stored.sequencer, f"{stored.etag}@{self.time}")
        return Arrival("s3", self.detail.bucket.name, stored.key, version)


class TopicMessage(_Shape):
    """What an SNS topic sends on, and what it sends first: the address by which a person confirms that it may."""

    kind: Literal["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"] = Field(
        validation_alias="Type"
    )
    message: Text = Field(validation_alias="Message")
    subscribe_url: str | None = Field(None, validation_alias="SubscribeURL")


class _PubSubAttributes(_Shape):
    event: Text = Field(validation_alias="eventType")
    bucket: Text = Field(validation_alias="bucketId")
    key: Text = Field(validation_alias="objectId")
    generation: Text = Field(validation_alias="objectGeneration")


class _PubSubMessage(_Shape):
    attributes: _PubSubAttributes


class PubSubPush(_Shape):
    """Cloud Storage by way of Pub/Sub push: the attributes tell all, whether or not the object's data is sent too."""

    message: _PubSubMessage

    def arrival(self) -> Arrival | None:
        """Of `OBJECT_FINALIZE`."""
        said = self.message.attributes
        return Arrival("gcs", said.bucket, said.key, said.generation) if said.event == "OBJECT_FINALIZE" else None


class _BlobData(_Shape):
    etag: str | None = Field(None, validation_alias="eTag")
    sequencer: str | None = None
    validation_code: str | None = Field(None, validation_alias="validationCode")


class GridEvent(_Shape):
    """Blob Storage by way of Event Grid, in its own schema."""

    id: Text
    kind: Text = Field(validation_alias="eventType")
    subject: str = ""
    data: _BlobData

    def handshake(self) -> str | None:
        """The code that Event Grid wants to hear back before it sends anything."""
        return self.data.validation_code if self.kind == "Microsoft.EventGrid.SubscriptionValidationEvent" else None

    def arrival(self) -> Arrival | None:
        """Of `BlobCreated`. The subject names the blob as it is, not encoded.

        Raises:
            ValueError: the subject names no blob.
        """
        if self.kind != "Microsoft.Storage.BlobCreated":
            return None
        blob = _BLOB.search(self.subject)
        if not blob:
            raise ValueError("the subject names no container and blob")
        return Arrival("azure", blob[1], blob[2], _version(self.data.sequencer, self.data.etag, self.id))


class CloudGridEvent(GridEvent):
    """The same in the CloudEvents schema."""

    kind: Text = Field(validation_alias="type")


def _version(*candidates: str | None) -> str:
    """The first that tells one arrival from the next; `null` is what S3 calls the version where it keeps none."""
    return next(candidate for candidate in candidates if candidate and candidate != "null")
