"""A pool never gives out memory that somebody still sees."""

import torch

from data_shards.format.buffers import BufferPool


def test_memory_is_used_again_only_when_no_view_of_it_is_left() -> None:
    pool = BufferPool()
    first = pool.take(100)
    address, view = first.ctypes.data, first.data[10:20]
    del first
    assert pool.take(100).ctypes.data != address
    del view
    assert address in {array.ctypes.data for array in [pool.take(100), pool.take(100)]}


def test_a_tensor_keeps_its_memory() -> None:
    pool = BufferPool()
    tensor = torch.from_numpy(pool.take(100))[4:8].view(torch.int16)
    address = tensor.data_ptr() - 4
    assert pool.take(100).ctypes.data != address
    del tensor
    assert pool.take(100).ctypes.data == address
