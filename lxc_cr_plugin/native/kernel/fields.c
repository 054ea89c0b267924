/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fields.h"

#include <linux/btf.h>

struct cr_error *kernel_field_locate(const struct btf *btf, uint32_t root,
				     const struct kernel_field *field, struct btf_place *ret)
{
	const char *path = field->paths[0];
	bool found = btf_locate(btf, root, path, ret);

	for (int i = 1; !found && i < KERNEL_NAMES_MAX && field->paths[i]; i++) {
		path = field->paths[i];
		found = btf_locate(btf, root, path, ret);
	}
	if (!found)
		return error_new(CR_HOST, "This kernel has no member %s in struct %s", path,
				 btf_name(btf, root));
	if (ret->size > field->size)
		return error_new(CR_HOST, "Member %s of struct %s has %u bytes, expected %zu", path,
				 btf_name(btf, root), ret->size, field->size);
	return NULL;
}

struct cr_error *kernel_fields_read(struct bpf_code *code, const struct btf *btf, const char *root,
				    const struct kernel_field *fields, size_t count,
				    const struct kernel_part *part)
{
	uint32_t type = btf_find(btf, BTF_KIND_STRUCT, root);
	struct btf_place previous, place;
	bool first = true;

	if (!type)
		return error_new(CR_HOST, "This kernel has no struct %s", root);
	for (size_t i = 0; i < count; i++) {
		if (fields[i].offset < part->start || fields[i].offset >= part->end)
			continue;
		if (fields[i].optional && !btf_locate(btf, type, fields[i].paths[0], &place))
			continue;
		TRY(kernel_field_locate(btf, type, &fields[i], &place));
		bpf_probe_place(code, part->slot + (int)(fields[i].offset - part->start), &place,
				first ? NULL : &previous);
		first = false;
		previous = place;
	}
	return NULL;
}
