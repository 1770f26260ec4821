/* SPDX-License-Identifier: MIT */
/*
 * gradients-<step>.safetensors: the gradient of every trainable tensor as it was before clipping,
 * and the loss.
 */
#include "gradient_dump.h"

#include "state_tensors.h"

int hm_gradient_dump(const char *path, const struct hm_adapter *adapter, double loss,
                     struct hm_error *err)
{
    size_t n = adapter->n_params;
    struct hm_tensor *tensor = hm_calloc(HM_MEM_TENSOR, n + 1, sizeof(*tensor));
    float loss_value = (float)loss;

    if (!tensor)
        return hm_fail_nomem(err, "writing '%s'", path);
    for (size_t i = 0; i < n; i++) {
        const struct hm_param *param = &adapter->param[i];
        bool vector = param->kind == HM_PARAM_FULL && param->cols == 1; /* a norm */
        tensor[i] = (struct hm_tensor){ .name = param->name,
                                        .dtype = HM_DTYPE_F32,
                                        .n_dims = vector ? 1 : 2,
                                        .shape = { param->rows, param->cols },
                                        .data = (const uint8_t *)param->grad };
    }
    tensor[n] = (struct hm_tensor){ .name = "loss",
                                    .dtype = HM_DTYPE_F32,
                                    .data = (const uint8_t *)&loss_value };
    struct hm_tensor_written then = hm_state_then_drop(adapter);
    int status = hm_safetensors_write_each(path, tensor, n + 1, NULL, &then, err);
    hm_free(tensor);
    return status;
}
