# SPDX-License-Identifier: MIT
"""run.py [WORD...]: every interop test, or those whose name holds a word; ends with "N passed, N failed, N skipped".

Our files and numbers against the tools they were made for. Where what is to agree is tested (golden: tests/golden, recorded outputs):
1. vocabulary: vocab.*, merge.*, encode.*, encode_fuzz.*, measure.*, byte_level.*; golden bpe, vocab
2. growing: vocab.mean_upstream_*, resize.*, rows.new_rows_*; golden resize
3. 4-bit folders: model.*four_bit*, folders.four_bit_folder_is_theirs, folders.settings_of_quantising; golden nf4
4. forward, losses, gradients: model.*forward, model.shapes_of_models, model.stored_types_and_shards, eval.*, train.gradients_are_pefts,
   objective.every_weight_trains, objective.an_expert_without_tokens, objective.router_*; golden model, eval; tests/grad against differences
5. training: train.training_follows_torch, bf16.*, objective.*, rows.dropout_*; golden train
6. adapters and merging: train.their_*, folders.adapters_keep_every_bit, folders.merging_in_every_way, folders.dense_models_merge,
   folders.large_models_are_streamed, train.adapter_over_four_bit_base; golden peft
7. generation: model.imported_llama2c_is_the_model, eval.generation_with_an_adapter; golden generate
"""
import sys

import harness
import interop_vocab        # noqa: F401  registers its tests
import interop_encode       # noqa: F401
import encode_fuzz          # noqa: F401
import interop_merge        # noqa: F401
import interop_model        # noqa: F401
import interop_train        # noqa: F401
import interop_objective    # noqa: F401
import interop_bf16         # noqa: F401
import interop_rows         # noqa: F401
import interop_resize       # noqa: F401
import interop_eval         # noqa: F401
import interop_folders      # noqa: F401
import interop_measure      # noqa: F401
import interop_byte_level   # noqa: F401
import interop_spm_json     # noqa: F401

if __name__ == "__main__":
    sys.exit(harness.main(sys.argv[1:]))
