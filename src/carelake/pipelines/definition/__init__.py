"""Definitions of pipelines: SageMaker Pipelines JSON, version 2020-12-01, read and checked."""
