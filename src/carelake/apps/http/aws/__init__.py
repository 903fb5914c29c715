"""Doors of AWS's shape at ``/aws``: unmodified boto3 with ``endpoint_url`` and an access key is the client."""
