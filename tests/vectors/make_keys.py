"""Prints keys.txt: python make_keys.py > keys.txt."""

import random
import sys
import uuid

# Found by trying: hashes at the edges of what 32 bits can say. For fnv1a, then for murmur2:
# 0, 1, 7fffffff, 80000000, 80000001, ffffffff.
SOUGHT = (
    "kKcsRJ10 k8Kns120 kQkrbP10 k_s6c340 kqOn3h60 k-j5jT10"
    " kIZprts0 kEj53m40 ke_gbJ10 kAcuN310 k8K9an60 ksAqxN10"
)
PUBLISHED = (
    "a b c d e f fo foo foob fooba foobar abc 21 a-little-bit-long-string"
    " a-little-bit-longer-string lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8"
)
WRITTEN = "order-1 Ordnung-ß ключ 注文-1 κλειδί مفتاح नमस्ते 🙂 👩‍👩‍👧‍👦 e\u0301 é İ a\u0000b"

chance = random.Random(20)
keys = [b"", bytes([0]), bytes([255]), bytes(4), bytes([255] * 7), bytes(range(256))]
keys += [key.encode() for key in f"{SOUGHT} {PUBLISHED} {WRITTEN}".split(" ")]
keys += [f"order-{number}".encode() for number in range(2, 60)]
keys += [str(uuid.UUID(bytes=chance.randbytes(16), version=4)).encode() for _ in range(60)]
keys += [chance.randbytes(length) for length in (*range(1, 70), 127, 128, 255, 256, 257, 1000)]

sys.stdout.write(
    "# Made by make_keys.py. Keys for partitioners, in hex: the empty one, hashes at the\n"
    "# edges, published test vectors, names in many scripts, identifiers, random bytes.\n"
)
sys.stdout.writelines(f"{key.hex()}\n" for key in keys)
