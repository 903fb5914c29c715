"""Quality measures, and summaries of people and of what they use, over the ready-made views."""
