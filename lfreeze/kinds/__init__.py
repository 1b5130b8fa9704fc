"""One file per family of strategies; each is found by ``lfreeze.strategy.kinds``."""
