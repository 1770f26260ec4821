# SPDX-License-Identifier: MIT
"""run.py [WORD...]: every interop test, or those whose name holds a word; ends with "N passed, N failed, N skipped"."""
import sys

import harness
import interop_vocab    # noqa: F401  registers its tests
import interop_model    # noqa: F401
import interop_train    # noqa: F401
import interop_objective    # noqa: F401
import interop_rows    # noqa: F401
import interop_eval    # noqa: F401
import interop_folders    # noqa: F401

if __name__ == "__main__":
    sys.exit(harness.main(sys.argv[1:]))
