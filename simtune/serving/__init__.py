"""`simtune serve`: an OpenAI-compatible endpoint for a base model and its adapters."""
