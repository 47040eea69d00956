"""Every file that any verb writes passes ONNX's checker, loads in ONNX Runtime, and agrees there."""
from common import DATA, agree, mopt

families = {"lenet5": ("1x28x28", []), "cnn": ("1x28x28", []), "resnet20": ("3x32x32", []), "resnet18": ("3x32x32", []),
            "mobilenetv2": ("3x96x96", []), "transformer": ("64x256", []), "mlp": ("1x28x28", ["--layers", "784,300,100,10"])}
for family, (shape, extra) in families.items():
    path = f"{family}.onnx"
    mopt("create", family, "--input", shape, "--classes", 10, *extra, "-o", path)
    print(family, agree(path))
    mopt("simplify", path, "-o", f"{family}.clean.onnx")
    print(family, "simplified", agree(f"{family}.clean.onnx"))
    mopt("prune", path, "--amount", "0.5", "-o", f"{family}.half.onnx", "--measure", 0)
    print(family, "pruned", agree(f"{family}.half.onnx"))
    mopt("prune", path, "--structured", "--target", "macs=0.6x", "-o", f"{family}.small.onnx", "--measure", 0)
    print(family, "shrunk", agree(f"{family}.small.onnx"))
    mopt("quantize", path, "--weight-only", "int8", "-o", f"{family}.w8.onnx", "--measure", 0)
    # its fusion of an int8 weight with MatMul rounds the activations to 8 bits too (0.3 % in the transformer)
    print(family, "weight-only", agree(f"{family}.w8.onnx", plain=True))
    if family not in ("lenet5", "cnn"):     # few of whose weights fill a block
        mopt("quantize", path, "--weight-only", "int4", "-o", f"{family}.w4.onnx", "--measure", 0)
        print(family, "int4", agree(f"{family}.w4.onnx", plain=True))
        mopt("quantize", path, "--weight-only", "int4", "--asymmetric", "--block", 64, "-o", f"{family}.w4.onnx", "-f", "--measure", 0)
        print(family, "uint4", agree(f"{family}.w4.onnx", plain=True))
    mopt("quantize", path, "--fp16", "-o", f"{family}.fp16.onnx", "--measure", 0)
    print(family, "fp16", agree(f"{family}.fp16.onnx", tolerance=2e-2))

small = ["--data", DATA, "--subset", "3%", "--epochs", 1, "--no-evaluate", "--measure", 0]
for family in ("lenet5", "cnn", "mlp"):
    mopt("train", f"{family}.onnx", *small, "-o", f"{family}.trained.onnx")
    print(family, "trained", agree(f"{family}.trained.onnx"))
    mopt("quantize", f"{family}.trained.onnx", "--data", DATA, "--no-evaluate", "--measure", 0, "-o", f"{family}.int8.onnx")
    # one step of the last quantized activation may fall the other way
    print(family, "int8", agree(f"{family}.int8.onnx", tolerance=3e-2))
    mopt("quantize", f"{family}.trained.onnx", "--qat", *small, "-o", f"{family}.qat.onnx")
    print(family, "qat", agree(f"{family}.qat.onnx", tolerance=3e-2))
mopt("distill", "mlp.onnx", "--teacher", "lenet5.trained.onnx", *small, "-o", "distilled.onnx")
print("distilled", agree("distilled.onnx"))
