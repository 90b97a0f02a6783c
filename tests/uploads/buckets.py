"""A bucket that sends its notifications to a queue, both in the stand-in for S3 and SQS."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import boto3

from deployments.uploads.sqs import POLL_S


class Store:
    """A bucket that notifies a queue."""

    def __init__(self, bucket: str, endpoint: str) -> None:
        self.inbox = f"s3://{bucket}/in"
        self._bucket = bucket
        self._s3 = boto3.client("s3", endpoint_url=endpoint)
        self._sqs = boto3.client("sqs", endpoint_url=endpoint)
        name = f"uploads-{uuid.uuid4().hex[:8]}"
        self.queue, self._copies = (
            str(self._sqs.create_queue(QueueName=name + ending)["QueueUrl"]) for ending in ("", "-copies")
        )
        configurations = [
            {"QueueArn": self._attribute("QueueArn", queue), "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
            for queue in (self.queue, self._copies)
        ]
        self._s3.put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration={"QueueConfigurations": configurations}
        )
        for queue in (self.queue, self._copies):  # the test that a bucket sends first
            for message in self._sqs.receive_message(QueueUrl=queue).get("Messages", ()):
                self._sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])

    def put(self, key: str, photo: bytes | None = None) -> None:
        """Upload a photo; where none is given, one like no other, that nobody could open."""
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=photo or uuid.uuid4().bytes)

    def told(self) -> list[str]:
        """What the bucket has told of its inbox, as it stood in the queue."""
        bodies: list[str] = []
        while messages := self._sqs.receive_message(QueueUrl=self._copies, MaxNumberOfMessages=10).get("Messages"):
            bodies += [str(message["Body"]) for message in messages]
        return [body for body in bodies if '"key": "in' in body]

    def send(self, message: Any) -> None:  # noqa: ANN401 - JSON, or text that is none
        """Put a message into the queue."""
        self._sqs.send_message(
            QueueUrl=self.queue, MessageBody=message if isinstance(message, str) else json.dumps(message)
        )

    def hang_up(self) -> None:
        """Let a stopped listener's last poll end.

        The stand-in does not notice that nobody is there any more: it would hand what comes next to nobody, and give
        it out again only much later.
        """
        self.send("nobody hears this")
        give_up = time.monotonic() + POLL_S
        while self._left("ApproximateNumberOfMessages") and time.monotonic() < give_up:
            time.sleep(0.1)
        self._sqs.purge_queue(QueueUrl=self.queue)

    def _attribute(self, name: str, queue: str | None = None) -> str:
        answer = self._sqs.get_queue_attributes(QueueUrl=queue or self.queue, AttributeNames=[name])
        return str(answer["Attributes"][name])

    @property
    def left(self) -> int:
        """Messages that were not deleted, whether or not somebody holds them."""
        return self._left("ApproximateNumberOfMessages") + self._left("ApproximateNumberOfMessagesNotVisible")

    def _left(self, count: str) -> int:
        return int(self._attribute(count))
