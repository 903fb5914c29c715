"""The lake as MEDS 0.4, the Medical Event Data Standard (https://github.com/Medical-Event-Data-Standard/meds)."""
