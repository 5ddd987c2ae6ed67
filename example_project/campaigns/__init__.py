"""Push campaigns: the product whose events the webhooks are about."""
