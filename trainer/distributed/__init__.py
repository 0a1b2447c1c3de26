"""Processes of a run: who they are, on which device, and how they exchange.

world      all ranks: sums, objects, agreement        exchange      parts of parameters, from all to all
node       the ranks of one host, over a board        descriptors   how many connections a rank may open
           in shared memory                           devices       which GPU a rank takes
"""
