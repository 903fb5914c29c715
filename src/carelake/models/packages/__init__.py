"""Model package groups and versions, in the shapes of SageMaker's Model Registry."""
