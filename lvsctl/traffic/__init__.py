"""Real traffic: the responder that stands on the real servers, and the clients."""
