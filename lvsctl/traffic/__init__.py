"""Real traffic: the real servers' responder, and clients."""
