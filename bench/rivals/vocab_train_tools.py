# SPDX-License-Identifier: MIT
"""BPE of Chinese by sentencepiece or gigabpe, for vocab_train_compare.sh.

  vocab_train_tools.py cut FILE MB DIR         the first MB of a .jsonl.zst: text.jsonl.zst, its lines text.txt, its Han runs runs.txt, one a line
  vocab_train_tools.py TOOL INPUT PIECES THREADS [LIST]     a row: the first four with the bytes of INPUT, then seconds, peak_rss_mib, rss_bytes_per_byte, same

Seconds and memory begin when the module is loaded and end with the model in memory. LIST is ours of the same runs: the merges are compared in order.
"""
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tests" / "golden" / "generate"))
LONGEST = 8


def cut(path, megabytes, folder):
    from make_bpe import han_runs
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    reader = subprocess.Popen(["zstdcat", path], stdout=subprocess.PIPE)
    size = 0
    with open(folder / "text.jsonl", "wb") as documents, open(folder / "text.txt", "w") as text, open(folder / "runs.txt", "w") as runs:
        for line in reader.stdout:
            document = json.loads(line)["text"]
            size += len(document.encode())
            if size > float(megabytes) * 1e6:
                break
            documents.write(line)
            text.writelines(part + "\n" for part in document.split("\n") if part)
            runs.writelines(run + "\n" for run in han_runs(document))
    reader.kill()
    subprocess.run(["zstd", "-q", "-f", "--rm", folder / "text.jsonl", "-o", folder / "text.jsonl.zst"], check=True)


def memory(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(key + ":"))


def by_sentencepiece(path, pieces, threads):
    import sentencepiece as spm
    yield
    blob = io.BytesIO()
    spm.SentencePieceTrainer.train(
        input=path, model_writer=blob, model_type="bpe", vocab_size=pieces, character_coverage=1.0, normalization_rule_name="identity",
        remove_extra_whitespaces=False, add_dummy_prefix=False, split_digits=True, split_by_unicode_script=True, max_sentencepiece_length=LONGEST,
        max_sentence_length=1 << 20, num_threads=threads, minloglevel=2)
    yield
    model = spm.SentencePieceProcessor(model_proto=blob.getvalue())
    yield [piece for piece in map(model.id_to_piece, range(3, len(model))) if len(piece) > 1]


def by_gigabpe(path, pieces, threads):
    import gigabpe
    yield
    _, merges = gigabpe.train_bpe([path], vocab_size=pieces, pretokenizer="whitespace", max_token_length=LONGEST, threads=threads)
    yield
    yield [left + right for left, right in merges]


def main():
    if sys.argv[1] == "cut":
        return cut(*sys.argv[2:5])
    tool, path, pieces, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    size = os.path.getsize(path)
    work = {"sentencepiece": by_sentencepiece, "gigabpe": by_gigabpe}[tool](path, pieces, threads)
    next(work)
    before, began = memory("VmRSS"), time.perf_counter()
    next(work)
    seconds, peak = time.perf_counter() - began, memory("VmHWM")
    merges, same = next(work), "-"
    if len(sys.argv) > 5:
        ours = [line.split("\t")[0] for line in Path(sys.argv[5]).read_text(encoding="utf-8").splitlines()][:len(merges)]
        same = "yes" if ours == merges else f"{sum(a == b for a, b in zip(ours, merges))} of {len(merges)}"
    print(f"{tool},{path},{size},{threads},{pieces},{seconds:.3f},{peak:.1f},{(peak - before) * 1048576 / size:.2f},{same}")


if __name__ == "__main__":
    main()
