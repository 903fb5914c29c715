"""Executions of pipelines: steps in parallel, each in a process of its own, cached by content, resumed."""
