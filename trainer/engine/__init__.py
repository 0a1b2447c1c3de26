"""One optimizer step through DeepSpeed, its settings, arithmetic and memory. Only deepspeed_start imports deepspeed."""
