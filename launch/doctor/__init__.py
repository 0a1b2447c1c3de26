"""`perceiver doctor`: can this machine, or that cluster, train runs?"""
