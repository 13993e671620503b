"""One file for each kind of condition; a file that is put here is found. They import torch only when they are used."""
