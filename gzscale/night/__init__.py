"""The night: plan, ledger, work, release and report."""
