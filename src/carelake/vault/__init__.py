"""Bytes at rest: the workspace on disk, its key ring, sealed objects and the encrypted database.

The only room that touches disk, SQL drivers and key material. Nothing here opens without a `core.permit.Permit`.
"""
