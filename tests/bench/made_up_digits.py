"""Pictures that can be told apart, where no real ones are at hand: usage: made_up_digits.py FOLDER

Ten classes of 28x28 bytes in IDX files: each class has its own few bars, moved by up to two pixels, under noise."""
import os
import random
import struct
import sys


def picture(draw, bars):
    dy, dx = draw.randint(-2, 2), draw.randint(-2, 2)
    pixels = bytearray(draw.randbytes(784))
    for i in range(784):
        pixels[i] >>= 2
    for y, x, height, width in bars:
        for r in range(max(y + dy, 0), min(y + dy + height, 28)):
            for c in range(max(x + dx, 0), min(x + dx + width, 28)):
                pixels[r * 28 + c] = min(pixels[r * 28 + c] + 150, 255)
    return pixels


def main():
    folder, draw = sys.argv[1], random.Random(1)
    os.makedirs(folder, exist_ok=True)
    classes = [[(draw.randint(3, 20), draw.randint(3, 20), *draw.choice(((3, 10), (10, 3)))) for _ in range(4)] for _ in range(10)]
    for part, n in (("train", 12000), ("t10k", 2000)):
        labels = bytes(draw.randrange(10) for _ in range(n))
        with open(f"{folder}/{part}-images-idx3-ubyte", "wb") as f:
            f.write(struct.pack(">IIII", 0x803, n, 28, 28))
            for label in labels:
                f.write(picture(draw, classes[label]))
        with open(f"{folder}/{part}-labels-idx1-ubyte", "wb") as f:
            f.write(struct.pack(">II", 0x801, n) + labels)


main()
