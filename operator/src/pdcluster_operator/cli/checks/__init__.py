"""The checks of `pdc preflight`: facts that are read once, and pure functions from them to verdicts."""
