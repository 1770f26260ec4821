# SPDX-License-Identifier: MIT
"""vocab.merge and vocab.check against sentencepiece and transformers: every loader, the published recipe, what the lint finds."""
import json
import logging
import os
import pathlib
import shutil
import warnings

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as spm_pb2

import harness
import loader_lines
from harness import GOLDEN, QUICKSTART, Skip, check, stage, test

MODELS = GOLDEN / "tokenizers" / "models"
MISTRAL = MODELS / "mistral-v1-32000.model"
CHINESE_SP = MODELS / "chinese-llama-chinese_sp-20000.model"


def proto(path):
    message = spm_pb2.ModelProto()
    message.ParseFromString(pathlib.Path(path).read_bytes())
    return message


def learned(folder, pieces=2500):
    stage("vocab.train", folder / "zh", in_text=QUICKSTART / "text" / "zh.jsonl.zst", in_base=MISTRAL, set_pieces=pieces)
    return folder / "zh"


def assert_alike(folder, lines):
    for name, (given, differing, first) in loader_lines.compare(folder, lines).items():
        check(differing == 0, f"{name}: {differing} of {given} lines differ from sentencepiece, the first {first!r}")
        check(given > lines * 0.9, f"{name}: only {given} lines")


@test
def loaders_agree_on_lines_of_all_kinds(folder):
    """tokenizer.json made from the model, and made by extending a base file in each form of merges. loader_lines.py does a million lines."""
    from transformers import LlamaTokenizerFast
    zh = learned(folder)
    stage("vocab.merge", folder / "merged", in_base=MISTRAL, in_extra=zh)
    assert_alike(folder / "merged", 8000)
    base = folder / "base"
    base.mkdir()
    shutil.copy(MISTRAL, base / "tokenizer.model")
    LlamaTokenizerFast.from_pretrained(str(base), legacy=True).save_pretrained(str(base))
    shutil.copy(MISTRAL, base / "tokenizer.model")
    for form in ("arrays", "strings"):
        data = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
        data["model"]["merges"] = [list(m) if form == "arrays" else " ".join(m) for m in (m if isinstance(m, list) else m.split(" ") for m in data["model"]["merges"])]
        (base / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        stage("vocab.merge", folder / form, in_base=base, in_extra=zh)
        after = json.loads((folder / form / "tokenizer.json").read_text(encoding="utf-8"))
        n = len(data["model"]["merges"])
        check(after["model"]["merges"][:n] == data["model"]["merges"] and len(after["model"]["merges"]) > n, f"{form}: the base's merges are no prefix")
        check(all(isinstance(m, list if form == "arrays" else str) for m in after["model"]["merges"]), f"{form}: another form was written")
        for key in ("normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens"):
            check(after[key] == data[key], f"{form}: {key} changed")
        assert_alike(folder / form, 4000)


BASES = {
    "spaces trimmed": dict(remove_extra_whitespaces=True, byte_fallback=True),
    "no prefix": dict(add_dummy_prefix=False, byte_fallback=True),
    "no bytes": dict(character_coverage=0.999),
    "ids": dict(byte_fallback=True, pad_id=0, bos_id=1, eos_id=2, unk_id=3),
    "names": dict(byte_fallback=True, unk_piece="[UNK]", bos_piece="[BOS]", eos_piece="[EOS]", control_symbols=["[SEP]"]),
    "no bos": dict(byte_fallback=True, bos_id=-1, eos_id=-1),
}


@test
def bases_of_other_kinds(folder):
    """Small BPE models with other spaces, ids and meta pieces than Mixtral's, merged: sentencepiece, ours, fast and slow give the same ids."""
    from transformers import AutoTokenizer
    (folder / "en.txt").write_text("\n".join(harness.documents_of(QUICKSTART / "text" / "en.jsonl.zst", 300_000)), encoding="utf-8")
    zh = learned(folder, 800)
    lines = [line for line in loader_lines.lines(2000) if not any(s in line for s in loader_lines.SPECIAL)]
    for name, options in BASES.items():
        prefix = folder / name.replace(" ", "_")
        spm.SentencePieceTrainer.train(**{**dict(input=str(folder / "en.txt"), model_prefix=str(prefix), model_type="bpe", vocab_size=700, minloglevel=2,
                                                 normalization_rule_name="identity", remove_extra_whitespaces=False), **options})
        base, out = pathlib.Path(f"{prefix}.model"), folder / f"merged {name}"
        stage("vocab.merge", out, in_base=base, in_extra=zh)
        check((out / "tokenizer.model").read_bytes().startswith(base.read_bytes()), f"{name}: the base is no prefix")
        sp = spm.SentencePieceProcessor(model_file=str(out / "tokenizer.model"))
        reference = sp.encode(lines)
        data = "".join(line + "\n" for line in lines).encode("utf-8")
        ours = loader_lines.ids_of_lines([harness.PROGRAM, "encode", "--tokenizer", out], data, len(lines))
        check(ours[:-1] == [" ".join(map(str, ids)) for ids in reference], f"{name}: hanmix encode differs")
        for fast in (True, False):
            tokenizer = AutoTokenizer.from_pretrained(str(out), use_fast=fast)
            theirs = tokenizer(lines, add_special_tokens=False)["input_ids"]
            bad = [line for line, a, b in zip(lines, theirs, reference) if a != b]
            check(not bad, f"{name}, {'fast' if fast else 'slow'}: {len(bad)} lines differ, the first {bad[:1]}")
            given = [-1 if i is None else i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id)]
            check(given == [sp.bos_id(), sp.eos_id(), sp.unk_id(), sp.pad_id()], f"{name}: special ids {given}")


class Heard(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())


@test
def auto_tokenizer_loads_in_silence(folder):
    """AutoTokenizer, fast and slow, from the folder alone; the legacy flag is the base's."""
    import transformers
    zh = learned(folder, 800)
    heard = Heard()
    logger = logging.getLogger("transformers")
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_warning()
    logger.addHandler(heard)
    try:
        for legacy in (None, True, False):
            base = MISTRAL
            if legacy is not None:
                base = folder / f"base{legacy}"
                base.mkdir()
                shutil.copy(MISTRAL, base / "tokenizer.model")
                transformers.LlamaTokenizerFast.from_pretrained(str(base), legacy=legacy).save_pretrained(str(base))
                shutil.copy(MISTRAL, base / "tokenizer.model")
            out = folder / f"merged{legacy}"
            stage("vocab.merge", out, in_base=base, in_extra=zh)
            heard.said.clear()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                kinds = [transformers.AutoTokenizer.from_pretrained(str(out), use_fast=fast) for fast in (True, False)]
            said = heard.said + [str(w.message) for w in caught if issubclass(w.category, (UserWarning, FutureWarning))]
            check(not said, f"legacy {legacy}: {said}")
            for tokenizer in kinds:
                check(len(tokenizer) == 32800 and tokenizer.is_fast == (tokenizer is kinds[0]), f"{len(tokenizer)} tokens")
                check(bool(tokenizer.init_kwargs["legacy"]) == (legacy is not False), f"legacy {legacy} became {tokenizer.init_kwargs['legacy']}")
                check((tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id) == (1, 2, 0, None), "special tokens")
                check(tokenizer.decode(tokenizer.encode("我们 use it。")[1:]) == "我们 use it。", "decoding")
            sp = spm.SentencePieceProcessor(model_file=str(out / "tokenizer.model"))
            for line in ("中华人民共和国 and 😀\t", "  indented", "没有空格的文字"):
                # Without legacy, with any vocabulary: the slow one encodes "<unk>" + text and cuts it off again, which loses a U+2581 before Han;
                # the fast one puts no U+2581 before a text that begins with a space.
                if legacy is False and line[0] == " ":
                    continue
                ids = [t.encode(line, add_special_tokens=False) for t in (kinds[:1] if legacy is False else kinds)]
                check(ids == [sp.encode(line)] * len(ids), f"legacy {legacy}: {line!r}: {ids}, sentencepiece {sp.encode(line)}")
    finally:
        logger.removeHandler(heard)
        transformers.utils.logging.set_verbosity(before)


def published_script(base, extra):
    """merge_tokenizers.py of Chinese-LLaMA-Alpaca, its loop word for word."""
    llama_spm, chinese_spm = proto(base), proto(extra)
    llama_spm_tokens_set = set(p.piece for p in llama_spm.pieces)
    for p in chinese_spm.pieces:
        piece = p.piece
        if piece not in llama_spm_tokens_set:
            new_p = spm_pb2.ModelProto().SentencePiece()
            new_p.piece = piece
            new_p.score = 0
            llama_spm.pieces.append(new_p)
    return llama_spm


@test
def score_zero_is_the_published_script(folder):
    for name, extra in (("unigram", CHINESE_SP), ("bpe", learned(folder, 1500) / "tokenizer.model")):
        report = stage("vocab.merge", folder / name, in_base=MISTRAL, in_extra=extra, set_score="zero")
        ours, theirs = proto(folder / name / "tokenizer.model"), published_script(MISTRAL, extra)
        check([(p.piece, p.score, p.type) for p in ours.pieces] == [(p.piece, p.score, p.type) for p in theirs.pieces], f"{name}: pieces, scores or types differ")
        check(ours.trainer_spec == theirs.trainer_spec and ours.normalizer_spec == theirs.normalizer_spec, f"{name}: settings differ")
        check(len(ours.pieces) == report["vocab_size"] and bool(report["warnings"]) == (name == "unigram"), f"{name}: {report}")
        base = MISTRAL.read_bytes()
        check((folder / name / "tokenizer.model").read_bytes()[:len(base)] == base, f"{name}: the base is no prefix")


def unreachable(path, old_pieces):
    """New pieces that sentencepiece does not cut into themselves, and old ones that it no longer does; without the dummy prefix."""
    bare = []
    for kept in (None, old_pieces):
        message = proto(path)
        if kept is not None:
            del message.pieces[kept:]
        message.normalizer_spec.add_dummy_prefix = False
        bare.append(spm.SentencePieceProcessor(model_proto=message.SerializeToString()))
    new, old = bare
    normal = [i for i in range(len(new)) if not (new.is_unknown(i) or new.is_control(i) or new.is_byte(i))]
    dead = [i for i in normal if new.encode(new.id_to_piece(i)) != [i]]
    return ([i for i in dead if i >= old_pieces],
            [i for i in dead if i < old_pieces and old.encode(old.id_to_piece(i)) == [i]])


def assert_lint(folder, old, new, code=1):
    report = stage("vocab.check", folder, in_old=old, in_new=new, in_text=QUICKSTART / "text" / "en.valid.jsonl.zst", code=code)
    by_rule = {}
    for item in report["lint"]:
        check(item["piece"] is not None and item["detail"] and item["remedy"] and item["severity"] in ("error", "warning"), str(item))
        by_rule.setdefault(item["rule"], []).append(item.get("id"))
    check({r["rule"]: r["findings"] for r in report["lint_rules"]} == {rule: len(ids) for rule, ids in by_rule.items()}, "lint_rules is not the sum of lint")
    dead, lost = unreachable(new / "tokenizer.model" if new.is_dir() else new, len(proto(old).pieces))
    check(by_rule.get("self", []) == dead, f"{len(by_rule.get('self', []))} pieces out of reach, {len(dead)} by sentencepiece")
    check(by_rule.get("old", []) == lost, f"{by_rule.get('old')} lost, {lost} by sentencepiece")
    return report, by_rule


@test
def lint_finds_what_sentencepiece_cannot_reach(folder):
    stage("vocab.merge", folder / "zero", in_base=MISTRAL, in_extra=CHINESE_SP, set_score="zero")
    report, by_rule = assert_lint(folder / "a", MISTRAL, folder / "zero")
    check(len(by_rule["self"]) > 300 and not report["identity_proved"] and by_rule["tie"], str(report["lint_rules"]))
    stage("vocab.merge", folder / "ranked", in_base=MISTRAL, in_extra=CHINESE_SP)
    report, by_rule = assert_lint(folder / "b", MISTRAL, folder / "ranked", code=0)
    check(report["identity_proved"] and report["lint_errors"] == 0 and report["differing"] == 0, str(report["lint_rules"]))


@test
def lint_of_chinese_llama_2(folder):
    """The published file: 657 pieces never used, 630 without two halves, and the base's 16 underscores. HANMIX_TOKENIZERS names a folder with both."""
    tokenizers = pathlib.Path(os.environ.get("HANMIX_TOKENIZERS", "none"))
    old, new = tokenizers / "llama2-32000.model", tokenizers / "chinese-llama-2-55296.model"
    if not (old.exists() and new.exists()):
        raise Skip("HANMIX_TOKENIZERS names no folder with llama2-32000.model and chinese-llama-2-55296.model")
    report, by_rule = assert_lint(folder / "c", old, new)
    check([len(by_rule[rule]) for rule in ("self", "split", "old", "tie")] == [657, 630, 1, 1], str(report["lint_rules"]))
    check([item["piece"] for item in report["lint"] if item["rule"] == "old"] == ["_" * 16], "the lost piece of the base")
    check([item["piece"] for item in report["lint"] if item["rule"] == "control"] == ["<pad>"], "the pad piece")


@test
def duplicates_are_findings(folder):
    message = proto(MISTRAL)
    for piece in ("中国", "中国", "the"):
        message.pieces.append(spm_pb2.ModelProto.SentencePiece(piece=piece, score=-40000))
    (folder / "twice.model").write_bytes(message.SerializeToString())
    report = stage("vocab.check", folder / "c", in_old=MISTRAL, in_new=folder / "twice.model", in_text=QUICKSTART / "text" / "en.valid.jsonl.zst", code=1)
    check([(item["rule"], item["piece"], item["id"]) for item in report["lint"]] == [("duplicate", "中国", 32001), ("duplicate", "the", 32002)], str(report["lint"]))
