"""Several servers on one store: who lives, who holds which broadcast, and what is to reach it."""
