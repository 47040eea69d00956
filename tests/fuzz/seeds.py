#!/usr/bin/env python3
"""Writes tests/fuzz/corpus: small sound files of every format that a fuzz target reads, and a few that are nearly sound.

    tests/fuzz/seeds.py        (the standard library alone)
"""
import gzip, io, json, os, struct, sys, zipfile, zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
from onnx_bytes import *  # noqa

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def put(target, name, data):
    folder = os.path.join(ROOT, target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as f:
        f.write(data.encode() if isinstance(data, str) else data)


# ---- the formats

def idx(dims, data):
    return bytes([0, 0, 8, len(dims)]) + b"".join(struct.pack(">I", d) for d in dims) + data


def npy(descr, shape, data, fortran=False):
    head = "{'descr': %r, 'fortran_order': %s, 'shape': %s, }" % (descr, fortran, tuple(shape))
    head += " " * (63 - (len(head) + 10) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + data


def npz(method, **arrays):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as z:
        for name, data in arrays.items():
            z.writestr(zipfile.ZipInfo(name + ".npy", (2020, 1, 1, 0, 0, 0)), data, method)
    return out.getvalue()


def png(width, height, color, rows):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))



# 8x8, grey, progressive; other sizes and forms are what the fuzzer makes of it
JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300100b0c0e0c0a100e0d0e1211101318281a181616183123251d283a333d3c"
    "3933383740485c4e404457453738506d51575f626768673e4d71797064785c656763ffc2000b080008000801011100ffc4001400010000"
    "0000000000000000000000000004ffda000801010000000137ffc400161000030000000000000000000000000000000104ffda00080101"
    "00010502531fffc40014100100000000000000000000000000000000ffda0008010100063f027fffc40015100101000000000000000000"
    "00000000000061ffda0008010100013f2183ffda0008010100000010ff00ffc4001610000300000000000000000000000000000001f0ff"
    "da0008010100013f10aa3fffd9")


# 4x3 and 16x16 pixels in formats that the standard library cannot write
PICTURES = {
    "lossless.webp":
        "5249464632000000574542505650384c260000002f038000005f201048f2dc5f6586299986f94f6c0782001285586299659659268de8"
        "7f60ba03",
    "lossy.webp":
        "524946469a00000057454250565038208e000000b003009d012a1000100005407c25b00274c9fe2ffdb7fd90c95e0863fe209e924be3"
        "e83e500000fd9a190166cfa9f79a5ae70683fb0b30412ec5802bcdb5b1478f790a9ca203ee84c430a3ff8e9857e13a7bca439efdf58a"
        "71e7304d1c61253bc1a886c6cfb4c336fc9f4ab9e106feb6c0d2ced6791201a64cb9d89a9c845aad307315ca0386a371f654bcd30000",
    "rgb.jp2":
        "0000000c6a5020200d0a870a00000014667479706a703220000000006a7032200000002d6a7032680000001669686472000000030000"
        "00040003070700000000000f636f6c7201000000000010000000c96a703263ff4fff51002f0000000000040000000300000000000000"
        "00000000040000000300000000000000000003070101070101070101ff52000c00000001000104040001ff5c00074040484850ff6400"
        "25000143726561746564206279204f70656e4a5045472076657273696f6e20322e352e34ff90000a00000000004e0001ff93cfb41407"
        "d03d78efcfb41009f6aa2bdf802807ae51c061c7da073f0029f981000e09ae03570c5fcfc0163ed028fc00800f2c5cfc4e02d70187c0"
        "f901800cfa1fffd9",
    "grey.j2k":
        "ff4fff510029000000000004000000030000000000000000000000040000000300000000000000000001070101ff52000c0000000100"
        "0104040001ff5c00074040484850ff640025000143726561746564206279204f70656e4a5045472076657273696f6e20322e352e34ff"
        "90000a0000000000280001ff93cfb4140a1a552ae1c7da0b0fa80a3f00200764f83b0f00df068fffd9",
    "lzw.tiff":
        "49492a00320000008000204252d83494b60d1bc22274a1b068b963905bc222700cfa5b14360d04d199d4e48e4125dd28f8080a000001"
        "030001000000040000000101030001000000030000000201030003000000b00000000301030001000000050000000601030001000000"
        "0200000011010400010000000800000015010300010000000300000016010300010000000300000017010400010000002a0000001c01"
        "0300010000000100000000000000080008000800",
    "deflate.tiff":
        "49492a001c000000789c6330cd9a7f85d3ae78c55d2177001c4204ab0900000103000100000004000000010103000100000003000000"
        "020103000100000008000000030103000100000008000000060103000100000001000000110104000100000008000000160103000100"
        "0000030000001701040001000000140000001c010300010000000100000000000000",
    "fax.tiff":
        "49492a001800000023a23a23a0952492495a4924a0020020090000010300010000000900000001010300010000000300000002010300"
        "010000000100000003010300010000000400000006010300010000000100000011010400010000000800000016010300010000000300"
        "00001701040001000000100000001c010300010000000100000000000000",
}


def bmp(width, height, rows):
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54 + len(rows), 0, 0, 54, 40, width, height, 1, 24, 0, len(rows), 0, 0, 0, 0) + rows


def many_tiles(j2k, side):
    """the same stream, said to be side x side pixels in tiles of one"""
    at = j2k.index(b"\xff\x4f\xff\x51")
    return j2k[:at + 8] + struct.pack(">IIIIII", side, side, 0, 0, 1, 1) + j2k[at + 32:]


def palette_jp2(j2k):
    """the stream as indexes of 256 colours: the decoder then makes three components of one"""
    def box(kind, data):
        return struct.pack(">I", 8 + len(data)) + kind + data
    at = j2k.index(b"\xff\x4f\xff\x51")
    width, height = struct.unpack(">II", j2k[at + 8:at + 16])
    head = (box(b"ihdr", struct.pack(">IIHBBBB", height, width, 1, 7, 7, 0, 0)) + box(b"colr", struct.pack(">BBBI", 1, 0, 0, 16)) +
            box(b"pclr", struct.pack(">HB", 256, 3) + b"\x07\x07\x07" + bytes(range(256)) * 3) +
            box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, k) for k in range(3))))
    return (box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + box(b"jp2h", head) + box(b"jp2c", j2k[at:]))


def checkpoint(parts):
    def up(n):
        return (n + 63) // 64 * 64
    at = up(40 + 40 * len(parts))
    table, body = b"", b""
    for name, data in parts:
        table += name.encode().ljust(24, b"\0") + struct.pack("<QQ", at, len(data))
        body += data.ljust(up(len(data)), b"\0")
        at += up(len(data))
    body = (struct.pack("<Q", len(parts)) + table).ljust(up(40 + 40 * len(parts)) - 32, b"\0") + body
    h = 0xCBF29CE484222325
    for b in body:
        h = (h ^ b) * 0x100000001B3 & (1 << 64) - 1
    return b"mopt-ck1" + struct.pack("<IIQQ", 1, 0x01020304, at, h) + body


def data_files():
    put("idx", "images", idx([2, 2, 3], bytes(range(12))))
    put("idx", "rgb.gz", gzip.compress(idx([2, 2, 2, 3], bytes(range(24))), mtime=0))
    put("idx", "labels", idx([3], bytes([0, 1, 2])))
    put("cifar", "one", bytes([7]) + bytes(3072))
    put("cifar", "hundred", bytes([1, 9]) + bytes(3072))
    put("csv", "quoted", b"\0age,job,pay\n1,\"a \"\"b\"\"\",yes\r\n?,c,no\n3.5,,yes\n\n")
    put("csv", "header", b"\1y;x\n1;2\n0;5e-3\n")
    put("csv", "regression", b"\2a,1.5\nb,-2\na,3e4\n")
    put("csv", "tabs", b"\0031\t2\tx\n2\t3\ty\n")
    put("csv", "schema", SCHEMA_CSV + "\0001,no,u\n?,yes,w\n3,yes,?\n")
    put("npy", "ints", npy("<i4", [2, 1], struct.pack("<2i", 1, 2), True))
    put("npy", "images", npy("|u1", [2, 2, 2], bytes(8)))
    put("npy", "floats", npy("<f8", [2, 3], bytes(48)))
    x, y = npy("<f4", [3, 2], floats(1, 2, 3, 4, 5, 6)), npy("<i8", [3], longs(0, 1, 0))
    put("npy", "stored.npz", npz(zipfile.ZIP_STORED, x=x, y=y))
    put("npy", "deflated.npz", npz(zipfile.ZIP_DEFLATED, x_train=x, y_train=y, x_test=x, y_test=y))
    put("svmlight", "classes", b"\0+1 1:0.5 3:-2 # c\n-1 qid:7 2:1e2\r\n+1\n")
    put("svmlight", "from-zero", b"\0011 0:1 4:2\n0 2:3\n")
    put("svmlight", "values", b"\0020.25 0:1 7:2\n-3e5 4:4\n")
    put("image", "progressive.jpg", JPEG)
    put("image", "grey.png", png(8, 8, 0, bytes(9 * 8)))
    put("image", "rgb.png", png(3, 2, 2, (b"\0" + bytes(9)) * 2))
    for name, text in PICTURES.items():
        put("image", name, bytes.fromhex(text))
    put("image", "tiles.j2k", many_tiles(bytes.fromhex(PICTURES["grey.j2k"]), 255))
    put("image", "palette.jp2", palette_jp2(bytes.fromhex(PICTURES["grey.j2k"])))
    put("image", "rgb.bmp", bmp(2, -2, bytes(16)))
    put("image", "plain.ppm", "P3 2 1 255 1 2 3 4 5 6")
    put("image", "bits.pbm", b"P4 9 1\n\x55\x80")
    put("image", "palette.png", png(2, 2, 4, (b"\0" + bytes(4)) * 2))


def tensor_files():
    cases = {
        "floats": tensor("x", F32, [2, 2], floats(1, 2, 3, 4)),
        "packed": tensor("x", F32, [2], None, blob(4, floats(1, 2))),
        "one-by-one": tensor("x", I64, [2], None, number(7, 5) + number(7, 2**64 - 1)),
        "ints": tensor("x", I32, [3], None, blob(5, varint(1) + varint(2) + varint(300))),
        "halves": tensor("x", F16, [2], None, blob(5, varint(0x3C00) + varint(0x4000))),
        "nibbles": tensor("x", 22, [3], b"\x98\x01"),
        "texts": tensor("x", TEXT, [2], None, blob(6, "ab") + blob(6, "")),
        "empty": tensor("x", F32, [0, 3], b""),
        "doubles": tensor("x", 11, [1], None, blob(10, struct.pack("<d", 0.5))),
        "unsigned": tensor("x", 13, [2], None, blob(11, varint(2**64 - 1) + varint(1))),
    }
    for name, data in cases.items():
        put("tensor", name, data)
        put("testdata", name, data + b"\xff\xff" + tensor("y", F32, [2, 1], floats(1, 2)))
    put("tensor", "array.npy", npy("<f2", [2], b"\0\x3c\0\x40"))
    put("tensor", "scalar.npy", npy("<i8", [], longs(7)))

    def external(*pairs):
        return number(14, 1) + b"".join(blob(13, blob(1, k) + blob(2, v)) for k, v in pairs)
    for name, place in {
        "whole": [("location", "d"), ("offset", "0"), ("length", "16")],
        "offset": [("location", "sub/d"), ("offset", "48")],
        "link": [("location", "in"), ("length", "16"), ("checksum", "ab")],
        "link-out": [("location", "out")],
        "up": [("location", "up/d")],
        "dots": [("location", "sub/../../d")],
        "root": [("location", "/etc/passwd")],
        "beyond": [("location", "d"), ("offset", "18446744073709551600"), ("length", "16")],
        "negative": [("location", "d"), ("offset", "-8")],
        "folder": [("location", "sub")],
        "nothing": [],
    }.items():
        put("external", name, tensor("w", F32, [4], None, external(*place)))


SCHEMA_CSV = ('{"format":"csv","label":1,"target":"classes","plain":false,"classes":["no","yes"],'
              '"columns":[{"name":"a","mean":2},{"name":"b"},{"name":"c","words":["","u","v"]}]}')


def texts():
    put("schema", "csv", SCHEMA_CSV)
    put("schema", "imagefolder", '{"format":"imagefolder","classes":["cat","dog"]}')
    put("schema", "more-classes", '{"format":"imagefolder","classes":["ant","cat","dog"]}')
    put("schema", "svmlight", '{"format":"svmlight","columns":4,"classes":[-1,1]}')
    put("recipe", "list", '[{"pass":"prune","amount":0.5},{"verb":"simplify"}]')
    put("recipe", "object", json.dumps({"mopt": 1, "seed": 7, "data": "idx:D", "threads": 1, "passes": [
        {"pass": "prune", "amount": "50%", "structured": True, "only": ["conv*", "fc"], "epochs": 4},
        {"pass": "quantize", "weight-only": "int8"}, {"pass": "train", "lr": 0.01, "optimizer": "sgd"}]}))
    put("recipe", "gates", '{"steps":[{"pass":"eval"}],"data":"csv:a","max-drop":"0.5%","min-accuracy":0.9,'
                           '"set":["a=int4","b=float"]}')
    put("create", "family", '{"family":"lenet5","input":[1,28,28],"classes":10,"name":"n"}')
    put("create", "mlp", '{"family":"mlp","input":[4],"layers":[4,3,2]}')
    put("create", "chain", json.dumps({"input": [1, 8, 8], "layers": [
        {"type": "conv", "out": 2, "kernel": 3, "pad": [1, 1]}, {"type": "batchnorm"}, {"type": "relu"},
        {"type": "residual", "layers": [{"type": "conv", "out": 2, "kernel": 1, "bias": False}],
         "shortcut": [{"type": "conv", "out": 2, "kernel": 1}]},
        {"type": "maxpool", "kernel": 2, "stride": 2}, {"type": "flatten"}, {"type": "dropout", "rate": 0.5},
        {"type": "linear", "out": 3, "name": "fc"}]}))
    put("create", "transformer", '{"family":"transformer","input":[4,8],"classes":2,"width":0.1}')
    put("report", "train", json.dumps({
        "mopt": "0.1.0", "schema": 1, "verb": "train", "status": "ok", "model": "a<b>.onnx",
        "before": {"parameters": 10, "macs": None, "bytes": 40}, "after": {"metrics": {"accuracy": 0.5, "n": 10}},
        "epochs": [{"epoch": 1, "loss": 1.5, "accuracy": 0.25}, {"epoch": 2, "loss": 0.5}],
        "gates": [{"gate": "max-drop", "limit": 0.1, "value": 0.2, "verdict": "failed"}],
        "audit": [{"name": "w", "action": "int8"}], "files": [{"role": "input", "name": "x", "bytes": 3}]}))
    put("report", "bench", '{"verb":"bench","models":[{"name":"a","latency_ms":{"mean":1.5,"median":1,"p99":9}},'
                           '{"name":"b","latency_ms":{"mean":2},"ratio":1.2}]}')
    put("report", "odd", '{"a":[[],{},[1e400,-0.0,"\\u0000","\\ud83d\\ude00"]],"a":true,"":null}')
    put("transform", "image", "rotate=15,random-resized-crop=8,hflip,normalize=imagenet")
    put("transform", "settled", "resize=4x5,center-crop=3,scale=1/255,standardize=channel/0.5:0.5:0.5/1:2:3")
    put("transform", "values", "minmax=feature/0:1:2:3/1:1:2:2")
    put("transform", "all", "pad-crop=1,vflip=0.5,color-jitter=0.1:0.2,translate=0.1,random-scale=0.8:1.2,grey,rgb,bgr")
    recipe = '{"mopt":1,"seed":1,"data":"idx:D","passes":[{"pass":"train","epochs":2}]}'
    put("checkpoint", "run", checkpoint([("weights", floats(1, 2)), ("model", b"m.onnx"), ("recipe", recipe.encode()),
                                         ("step", struct.pack("<Q", 0)), ("settings", b"seed=1\n")]))
    put("checkpoint", "no-recipe", checkpoint([("weights", floats(1))]))


data_files()
tensor_files()
texts()
