"""Serving: endpoints that answer with reasons and remember every prediction."""
