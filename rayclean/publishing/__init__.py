"""Giving away what a run made, on the Hugging Face hub: the trained model or the cleaned data set, each with its card."""
