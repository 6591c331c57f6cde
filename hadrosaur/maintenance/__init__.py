"""Keeping house: what is too old goes, what is kept travels, and what is wrong is named."""
