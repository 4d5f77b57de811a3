"""Rate limits of the platform, and pauses of publishing after a refusal for a quota."""
