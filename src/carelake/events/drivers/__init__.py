"""Who takes events out: functions of this process, whoever reads a command's output, webhooks, EventBridge."""
