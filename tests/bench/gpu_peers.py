"""PyTorch's and ONNX Runtime's times on the card, as rows of gpu.sh's table: gpu_peers.py FOLDER SECONDS

FOLDER holds NET.onnx of `mopt create`. PyTorch: the nets of peer_torch.py, channels-last, float32 without and with TF32,
and compiled. ONNX Runtime: its CUDA provider, where it has one, on the same files."""
import os
import runpy
import statistics
import sys
import time
import warnings

warnings.filterwarnings("ignore")
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))


def nets():
    """peer_torch.py's table; reading requests from an empty stdin it ends at once."""
    argv, stdin, stdout = sys.argv, sys.stdin, sys.stdout
    with open(os.devnull) as empty, open(os.devnull, "w") as nowhere:
        sys.argv, sys.stdin, sys.stdout = ["peer_torch.py", "mlp"], empty, nowhere
        try:
            return runpy.run_path(os.path.join(HERE, "peer_torch.py"))["NETS"]
        finally:
            sys.argv, sys.stdin, sys.stdout = argv, stdin, stdout


def median_ms(step, seconds=1.0):
    for _ in range(5):
        step()
    torch.cuda.synchronize()
    times, begin = [], time.perf_counter()
    while len(times) < 10 or time.perf_counter() - begin < seconds:
        t = time.perf_counter()
        step()
        torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - t))
    return statistics.median(times)


def of_torch(make, shape, batch, train, tf32, compiled):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    model, x = make().cuda().train(train), torch.randn(batch, *shape, device="cuda")
    if x.dim() == 4:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    run = torch.compile(model, mode="reduce-overhead", dynamic=False) if compiled else model
    if not train:
        def infer():
            with torch.inference_mode():
                run(x)
        return median_ms(infer)
    y = torch.randint(0, 10, (batch,), device="cuda")
    optimizer = torch.optim.SGD(model.parameters(), 1e-6, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(run(x), y).backward()
        optimizer.step()
    return median_ms(step)


def row(name, value):
    print(f"{name:<44} {value}", flush=True)


def main():
    folder, end = sys.argv[1], time.perf_counter() + float(sys.argv[2])
    table = nets()
    jobs = [(f"PyTorch train {n}, batch 128, {'TF32' if tf32 else 'fp32'}", n, 128, True, tf32, False)
            for n in ("lenet5", "resnet20") for tf32 in (False, True)]
    jobs += [(f"PyTorch infer {n}, batch {b}", n, b, False, False, False) for n in table for b in (1, 64)]
    jobs += [("PyTorch compiled train resnet20, batch 128, TF32", "resnet20", 128, True, True, True)]
    for name, net, batch, train, tf32, compiled in jobs:
        if time.perf_counter() + (45 if compiled else 5) > end:
            row(name, "no time was left")
            continue
        try:
            row(name, f"{of_torch(*table[net], batch, train, tf32, compiled):.4g} ms")
        except Exception as e:
            row(name, f"{type(e).__name__}: {str(e).splitlines()[0][:80] if str(e) else ''}")
    try:
        import onnxruntime
    except ImportError:
        return row("ONNX Runtime", "not here")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return row("ONNX Runtime", "has no CUDA provider here")
    for net in table:
        if time.perf_counter() + 5 > end:
            return row("ONNX Runtime", "no time was left")
        session = onnxruntime.InferenceSession(f"{folder}/{net}.onnx", providers=["CUDAExecutionProvider"])
        feed = {i.name: torch.zeros([d if isinstance(d, int) else 64 for d in i.shape]).numpy() for i in session.get_inputs()}
        row(f"ONNX Runtime infer {net}, batch 64", f"{median_ms(lambda: session.run(None, feed)):.4g} ms")


main()
