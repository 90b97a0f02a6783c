"""Messages as the stores document them: facts about others, cut down to no less than what they all send."""

from __future__ import annotations

import base64
import json
from typing import Any

Message = dict[str, Any]


def s3_record(key: str = "in/hug/anna+and+ben/1.jpg", *, event: str = "ObjectCreated:Put", **stored: str) -> Message:
    """One record of S3's own; the key is encoded as in a form."""
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "eu-central-1",
        "eventTime": "2026-11-25T00:00:00.000Z",
        "eventName": event,
        "userIdentity": {"principalId": "AWS:AIDAJDPLRKLG7UEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "uploads",
            "bucket": {
                "name": "photos",
                "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
                "arn": "arn:aws:s3:::photos",
            },
            "object": {
                "key": key,
                "size": 1024,
                "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                "sequencer": "0055AED6DCD90281E5",
                **stored,
            },
        },
    }


def s3(*records: Message) -> Message:
    return {"Records": list(records or (s3_record(),))}


def s3_test() -> Message:
    """What a bucket sends once, when it learns where to."""
    return {
        "Service": "Amazon S3",
        "Event": "s3:TestEvent",
        "Time": "2026-11-25T00:00:00.000Z",
        "Bucket": "photos",
        "RequestId": "5582815E1AEA5ADF",
        "HostId": "8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR+YstdA6Knx4Ip8EXAMPLE",
    }


def topic(message: Message, kind: str = "Notification") -> Message:
    """By way of SNS."""
    said = {
        "Type": kind,
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:eu-central-1:123456789012:uploads",
        "Subject": "Amazon S3 Notification",
        "Message": json.dumps(message),
        "Timestamp": "2026-11-25T00:00:00.000Z",
        "SignatureVersion": "1",
        "Signature": "EXAMPLEw6JRN",
        "SigningCertURL": "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0000.pem",
    }
    if kind == "SubscriptionConfirmation":
        said |= {"Token": "2336412f37", "SubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=Confirm"}
    return said


def bridge(key: str = "in/hug/anna and ben/1.jpg", *, kind: str = "Object Created", **stored: str) -> Message:
    """By way of EventBridge; the key is as it is."""
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": kind,
        "source": "aws.s3",
        "account": "123456789012",
        "time": "2026-11-25T00:00:00Z",
        "region": "eu-central-1",
        "resources": ["arn:aws:s3:::photos"],
        "detail": {
            "version": "0",
            "bucket": {"name": "photos"},
            "object": {
                "key": key,
                "size": 1024,
                "etag": "d41d8cd98f00b204e9800998ecf8427e",
                "sequencer": "0055AED6DCD90281E5",
                **stored,
            },
            "request-id": "N4N7GDK58NMKJ12R",
            "requester": "123456789012",
            "source-ip-address": "127.0.0.1",
            "reason": "PutObject",
        },
    }


def minio() -> Message:
    """MinIO's webhook: S3's records, with `s3:` before the event's name, and every `/` of the key encoded too."""
    record = s3_record("in%2Fhug%2Fanna+and+ben%2F1.jpg", event="s3:ObjectCreated:Put", versionId="")
    return {"EventName": "s3:ObjectCreated:Put", "Key": "photos/in/hug/anna and ben/1.jpg", "Records": [record]}


def pubsub(key: str = "in/hug/anna and ben/1.jpg", *, event: str = "OBJECT_FINALIZE") -> Message:
    """Cloud Storage by way of Pub/Sub push."""
    resource = {"kind": "storage#object", "name": key, "bucket": "photos", "generation": "1761350400000000"}
    return {
        "message": {
            "attributes": {
                "notificationConfig": "projects/_/buckets/photos/notificationConfigs/1",
                "eventType": event,
                "payloadFormat": "JSON_API_V1",
                "bucketId": "photos",
                "objectId": key,
                "objectGeneration": "1761350400000000",
                "eventTime": "2026-11-25T00:00:00.000000Z",
            },
            "data": base64.b64encode(json.dumps(resource).encode()).decode(),
            "messageId": "2070443601311540",
            "message_id": "2070443601311540",
            "publishTime": "2026-11-25T00:00:00.1Z",
        },
        "subscription": "projects/p/subscriptions/uploads",
    }


def grid(name: str = "in/hug/anna and ben/1.jpg", kind: str = "Microsoft.Storage.BlobCreated") -> list[Message]:
    """Blob Storage by way of Event Grid, in its own schema."""
    return [
        {
            "topic": "/subscriptions/0/resourceGroups/r/providers/Microsoft.Storage/storageAccounts/account",
            "subject": f"/blobServices/default/containers/photos/blobs/{name}",
            "eventType": kind,
            "eventTime": "2026-11-25T00:00:00.0000000Z",
            "id": "831e1650-001e-001b-66ab-eeb76e069631",
            "data": {
                "api": "PutBlockList",
                "clientRequestId": "6d79dbfb-0e37-4fc4-981f-442c9ca65760",
                "requestId": "831e1650-001e-001b-66ab-eeb76e000000",
                "eTag": "0x8D4BCC2E4835CD0",
                "contentType": "image/jpeg",
                "contentLength": 1024,
                "blobType": "BlockBlob",
                "url": f"https://account.blob.core.windows.net/photos/{name}",
                "sequencer": "00000000000004420000000000028963",
                "storageDiagnostics": {"batchId": "b68529f3-68cd-4744-baa4-3c0498ec19f0"},
            },
            "dataVersion": "",
            "metadataVersion": "1",
        }
    ]


def grid_validation() -> list[Message]:
    """What Event Grid sends before anything else."""
    return [
        {
            "id": "2d1781af-3a4c-4d7c-bd0c-e34b19da4e66",
            "topic": "/subscriptions/0",
            "subject": "",
            "data": {
                "validationCode": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6",
                "validationUrl": "https://rp-eastus2.eventgrid.azure.net/eventsubscriptions/x/validate",
            },
            "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
            "eventTime": "2026-11-25T00:00:00.0000000Z",
            "metadataVersion": "1",
            "dataVersion": "1",
        }
    ]


def cloud_event() -> Message:
    """The same in the CloudEvents schema."""
    [event] = grid()
    return {
        "specversion": "1.0",
        "source": event["topic"],
        "subject": event["subject"],
        "type": event["eventType"],
        "time": event["eventTime"],
        "id": event["id"],
        "data": event["data"],
    }
