"""Environments in order of difficulty, each with a random and an oracle policy as bounds."""
