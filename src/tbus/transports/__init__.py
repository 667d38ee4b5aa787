"""Brokers, behind one contract."""
