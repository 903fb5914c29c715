"""Keys that are released to who proves what it is: attestation documents, the policy of a release, the recipient."""
