# Lets Julia's own Pkg fetch what the lock names into the first depot; nothing is resolved anew.
import Pkg
Pkg.instantiate()
