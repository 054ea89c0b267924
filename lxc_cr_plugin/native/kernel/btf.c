/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "btf.h"

#include <ctype.h>
#include <fcntl.h>
#include <linux/btf.h>
#include <search.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../cleanup.h"

static const char btf_file[] = "/sys/kernel/btf/vmlinux";

/* Types may refer to each other in a circle; no real chain of typedefs or anonymous structs is this
 * long. */
enum { DEPTH_MAX = 16, BTF_SIZE_MAX = 256 << 20 };

struct btf {
	uint8_t *data;
	size_t size;
	const uint8_t *types;
	size_t types_size;
	const char
		*strings; /* ends with NUL: checked once, so that every offset inside is a string */
	size_t strings_size;
	uint32_t *offsets; /* [id]: of its struct btf_type in types; [0] is void */
	uint32_t count;
	struct hsearch_data *
		structs; /* ids by name: there are ten thousand, some are asked for under the stop */
	bool without_probes;
};

/* Newer headers widen both fields into bits that were zero before. */
static unsigned int info_kind(uint32_t info)
{
	return (info >> 24) & 0x7f;
}

static uint32_t info_vlen(uint32_t info)
{
	return info & 0xffffff;
}

/* A type's own bytes after struct btf_type; -1: a kind from a later kernel, whose length nobody can
 * know. */
static int64_t trailer_size(const struct btf_type *type)
{
	uint64_t vlen = info_vlen(type->info);

	switch (info_kind(type->info)) {
	case BTF_KIND_INT: return sizeof(uint32_t);
	case BTF_KIND_ARRAY: return sizeof(struct btf_array);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION: return vlen * sizeof(struct btf_member);
	case BTF_KIND_ENUM: return vlen * sizeof(struct btf_enum);
	case BTF_KIND_ENUM64: return vlen * sizeof(struct btf_enum64);
	case BTF_KIND_FUNC_PROTO: return vlen * sizeof(struct btf_param);
	case BTF_KIND_VAR: return sizeof(struct btf_var);
	case BTF_KIND_DATASEC: return vlen * sizeof(struct btf_var_secinfo);
	case BTF_KIND_DECL_TAG: return sizeof(struct btf_decl_tag);
	case BTF_KIND_PTR:
	case BTF_KIND_FWD:
	case BTF_KIND_TYPEDEF:
	case BTF_KIND_VOLATILE:
	case BTF_KIND_CONST:
	case BTF_KIND_RESTRICT:
	case BTF_KIND_FUNC:
	case BTF_KIND_FLOAT:
	case BTF_KIND_TYPE_TAG: return 0;
	default: return -1;
	}
}

static const struct btf_type *type_of(const struct btf *btf, uint32_t id)
{
	if (id == 0 || id >= btf->count)
		return NULL;
	return (const struct btf_type *)(const void *)(btf->types + btf->offsets[id]);
}

static const char *name_of(const struct btf *btf, uint32_t offset)
{
	return offset < btf->strings_size ? btf->strings + offset : "";
}

/* Typedefs and qualifiers taken off; __rcu and __user are type tags. */
static uint32_t bare_type(const struct btf *btf, uint32_t id)
{
	for (int depth = 0; depth < DEPTH_MAX; depth++) {
		const struct btf_type *type = type_of(btf, id);

		if (!type)
			return 0;
		switch (info_kind(type->info)) {
		case BTF_KIND_TYPEDEF:
		case BTF_KIND_VOLATILE:
		case BTF_KIND_CONST:
		case BTF_KIND_RESTRICT:
		case BTF_KIND_TYPE_TAG: id = type->type; break;
		default: return id;
		}
	}
	return 0;
}

static const struct btf_array *array_of(const struct btf *btf, uint32_t bare)
{
	const struct btf_type *type = type_of(btf, bare);

	if (!type || info_kind(type->info) != BTF_KIND_ARRAY)
		return NULL;
	return (const struct btf_array *)(const void *)(type + 1);
}

/* 0: no size, or more than any struct of the kernel has. */
static uint32_t size_of(const struct btf *btf, uint32_t id)
{
	uint64_t factor = 1;

	for (int depth = 0; depth < DEPTH_MAX; depth++) {
		uint32_t bare = bare_type(btf, id);
		const struct btf_type *type = type_of(btf, bare);
		const struct btf_array *array = array_of(btf, bare);
		uint64_t size;

		if (!type)
			return 0;
		if (array) {
			factor *= array->nelems;
			if (factor > INT32_MAX)
				return 0;
			id = array->type;
			continue;
		}
		switch (info_kind(type->info)) {
		case BTF_KIND_INT:
		case BTF_KIND_ENUM:
		case BTF_KIND_ENUM64:
		case BTF_KIND_FLOAT:
		case BTF_KIND_STRUCT:
		case BTF_KIND_UNION: size = factor * type->size; break;
		case BTF_KIND_PTR: size = factor * sizeof(void *); break;
		default: return 0;
		}
		return size > INT32_MAX ? 0 : (uint32_t)size;
	}
	return 0;
}

/* Where a walk along a path stands: a type, and its offset in the struct that the last pointer led
 * to. */
struct cursor {
	uint32_t type;
	uint64_t bit; /* offset in bits */
	uint32_t bits;
};

static bool step_member(const struct btf *btf, struct cursor *cursor, const char *name,
			size_t length, int depth)
{
	uint32_t bare = bare_type(btf, cursor->type);
	const struct btf_type *type = type_of(btf, bare);
	const struct btf_member *members;

	if (!type || depth > DEPTH_MAX)
		return false;
	if (info_kind(type->info) != BTF_KIND_STRUCT && info_kind(type->info) != BTF_KIND_UNION)
		return false;

	members = (const struct btf_member *)(const void *)(type + 1);
	for (uint32_t i = 0; i < info_vlen(type->info); i++) {
		const char *found = name_of(btf, members[i].name_off);
		/* With the kind flag the upper byte is a bit-field's width (0 for the others). */
		bool flagged = BTF_INFO_KFLAG(type->info);
		struct cursor next = {
			.type = members[i].type,
			.bit = cursor->bit + (flagged ? BTF_MEMBER_BIT_OFFSET(members[i].offset)
						      : members[i].offset),
			.bits = flagged ? BTF_MEMBER_BITFIELD_SIZE(members[i].offset) : 0,
		};

		if (!*found) {
			if (!step_member(btf, &next, name, length, depth + 1))
				continue;
		} else if (strncmp(found, name, length) != 0 || found[length]) {
			continue;
		}
		*cursor = next;
		return true;
	}
	return false;
}

static bool step_index(const struct btf *btf, struct cursor *cursor, unsigned long index)
{
	const struct btf_array *array = array_of(btf, bare_type(btf, cursor->type));

	/* the first item of an array without a length, at the end of its struct, is there */
	if (!array || cursor->bits || (index && index >= array->nelems))
		return false;
	cursor->bit += (uint64_t)index * size_of(btf, array->type) * 8;
	cursor->type = array->type;
	return true;
}

static bool step_pointer(const struct btf *btf, struct cursor *cursor, struct btf_place *place)
{
	const struct btf_type *type = type_of(btf, bare_type(btf, cursor->type));

	if (!type || info_kind(type->info) != BTF_KIND_PTR || cursor->bits)
		return false;
	if (cursor->bit / 8 > INT16_MAX || place->hop_count == BTF_HOPS)
		return false;
	place->hops[place->hop_count++] = (uint32_t)(cursor->bit / 8);
	*cursor = (struct cursor){.type = type->type};
	return true;
}

/* What the walk arrived at, as something that can be read. */
static bool measure(const struct btf *btf, const struct cursor *cursor, struct btf_place *place)
{
	uint64_t unit;

	place->size = size_of(btf, cursor->type);
	if (!place->size || cursor->bit / 8 > INT32_MAX)
		return false;
	unit = cursor->bits ? place->size : 1;
	place->offset = (uint32_t)(cursor->bit / 8 / unit * unit);
	place->bit = (uint32_t)(cursor->bit - (uint64_t)place->offset * 8);
	place->bits = cursor->bits;
	if (!place->bits)
		return place->bit == 0;
	return place->size <= 4 && place->bit + place->bits <= place->size * 8;
}

bool btf_locate(const struct btf *btf, uint32_t root, const char *path, struct btf_place *ret)
{
	struct cursor cursor = {.type = root};
	struct btf_place place = {0};
	bool arrived = false;

	for (const char *at = path; *at;) {
		if (*at == '[') {
			char *end;

			if (!step_index(btf, &cursor, strtoul(at + 1, &end, 10)) || *end != ']')
				return false;
			at = end + 1;
		} else if (at[0] == '-' && at[1] == '>') {
			if (!step_pointer(btf, &cursor, &place))
				return false;
			arrived = false;
			at += 2;
		} else if (*at == '.') {
			arrived = false;
			at++;
		} else {
			size_t length = strcspn(at, ".-[");

			if (length == 0 || !step_member(btf, &cursor, at, length, 0))
				return false;
			arrived = true;
			at += length;
		}
	}
	if (!arrived || !measure(btf, &cursor, &place))
		return false;
	*ret = place;
	return true;
}

void btf_forbid_probes(struct btf *btf)
{
	btf->without_probes = true;
}

bool btf_is_without_probes(const struct btf *btf)
{
	return btf->without_probes;
}

static bool is_named(const struct btf *btf, uint32_t id, unsigned int kind)
{
	const struct btf_type *type = type_of(btf, id);

	return type && info_kind(type->info) == kind && *name_of(btf, type->name_off);
}

static uint32_t find_struct(const struct btf *btf, const char *name)
{
	ENTRY wanted = {.key = (char *)(uintptr_t)name}, *found;

	return hsearch_r(wanted, FIND, &found, btf->structs) ? (uint32_t)(uintptr_t)found->data : 0;
}

uint32_t btf_find(const struct btf *btf, unsigned int kind, const char *name)
{
	if (kind == BTF_KIND_STRUCT)
		return find_struct(btf, name);
	for (uint32_t id = 1; id < btf->count; id++) {
		if (is_named(btf, id, kind) && strcmp(btf_name(btf, id), name) == 0)
			return id;
	}
	return 0;
}

uint32_t btf_struct_size(const struct btf *btf, const char *name)
{
	uint32_t id = btf_find(btf, BTF_KIND_STRUCT, name);

	return id ? size_of(btf, id) : 0;
}

const char *btf_name(const struct btf *btf, uint32_t id)
{
	const struct btf_type *type = type_of(btf, id);

	return type ? name_of(btf, type->name_off) : "?";
}

struct cr_error *btf_require(const struct btf *btf, const char *root, const char *path,
			     struct btf_place *ret)
{
	uint32_t id = btf_find(btf, BTF_KIND_STRUCT, root);

	if (!id || !btf_locate(btf, id, path, ret))
		return error_new(CR_HOST, "This kernel has no member %s in struct %s", path, root);
	return NULL;
}

static struct cr_error *damaged(const char *what)
{
	return error_new(CR_HOST, "Failed to understand %s: %s", btf_file, what);
}

static struct cr_error *find_sections(struct btf *btf)
{
	const struct btf_header *header = (const struct btf_header *)(const void *)btf->data;
	uint64_t body;

	if (btf->size < sizeof(*header) || header->magic != BTF_MAGIC)
		return damaged("no BTF header");
	if (header->version != BTF_VERSION || header->hdr_len < sizeof(*header) ||
	    header->hdr_len > btf->size)
		return damaged("an unknown version");
	body = btf->size - header->hdr_len;
	/* struct btf_type is read in place: no access may be misaligned. */
	if (header->hdr_len % 4 || header->type_off % 4 ||
	    (uint64_t)header->type_off + header->type_len > body ||
	    (uint64_t)header->str_off + header->str_len > body || !header->str_len)
		return damaged("a section outside the file");
	btf->types = btf->data + header->hdr_len + header->type_off;
	btf->types_size = header->type_len;
	btf->strings = (const char *)btf->data + header->hdr_len + header->str_off;
	btf->strings_size = header->str_len;
	if (btf->strings[btf->strings_size - 1])
		return damaged("an unterminated string");
	return NULL;
}

/* Types are of different lengths and are referred to by their number only. */
static struct cr_error *index_types(struct btf *btf)
{
	size_t at = 0;

	btf->offsets = malloc((btf->types_size / sizeof(struct btf_type) + 1) * sizeof(uint32_t));
	if (!btf->offsets)
		return error_nomem();
	btf->offsets[0] = 0;
	btf->count = 1;
	while (at < btf->types_size) {
		size_t rest = btf->types_size - at;
		const struct btf_type *type;
		int64_t trailer;

		if (rest < sizeof(*type))
			return damaged("a type that ends too early");
		type = (const struct btf_type *)(const void *)(btf->types + at);
		trailer = trailer_size(type);
		if (trailer < 0)
			return error_new(CR_HOST,
					 "Failed to understand %s: type %u is of unknown kind %u",
					 btf_file, btf->count, info_kind(type->info));
		if (rest - sizeof(*type) < (uint64_t)trailer)
			return damaged("a type that ends too early");
		btf->offsets[btf->count++] = (uint32_t)at;
		at += sizeof(*type) + (size_t)trailer;
	}
	return NULL;
}

/* Of several of one name the first counts: entering a name again changes nothing. */
static struct cr_error *index_structs(struct btf *btf)
{
	size_t count = 0;

	for (uint32_t id = 1; id < btf->count; id++)
		count += is_named(btf, id, BTF_KIND_STRUCT);
	btf->structs = calloc(1, sizeof(*btf->structs));
	if (!btf->structs || !hcreate_r(count + count / 4 + 1, btf->structs))
		return error_nomem();
	for (uint32_t id = 1; id < btf->count; id++) {
		ENTRY entry = {.key = (char *)(uintptr_t)btf_name(btf, id),
			       .data = (void *)(uintptr_t)id},
		      *found;

		if (is_named(btf, id, BTF_KIND_STRUCT) &&
		    !hsearch_r(entry, ENTER, &found, btf->structs))
			return error_nomem();
	}
	return NULL;
}

static struct cr_error *read_btf(struct btf *btf)
{
	_cleanup_close_ int fd = open(btf_file, O_RDONLY | O_CLOEXEC);
	struct stat status;

	if (fd < 0)
		return error_remedy(
			error_new(CR_HOST, "Failed to open %s: %m", btf_file),
			"Boot a kernel built with CONFIG_DEBUG_INFO_BTF=y and mount sysfs on /sys");
	if (fstat(fd, &status) < 0)
		return error_sys("Failed to stat %s", btf_file);
	if (status.st_size <= 0 || status.st_size > BTF_SIZE_MAX)
		return damaged("an impossible size");
	btf->data = malloc((size_t)status.st_size);
	if (!btf->data)
		return error_nomem();
	while (btf->size < (size_t)status.st_size) {
		ssize_t got = read(fd, btf->data + btf->size, (size_t)status.st_size - btf->size);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return error_sys("Failed to read %s", btf_file);
		if (got == 0)
			break;
		btf->size += (size_t)got;
	}
	return NULL;
}

struct cr_error *btf_open(struct btf **ret)
{
	_cleanup_btf_ struct btf *btf = calloc(1, sizeof(*btf));

	if (!btf)
		return error_nomem();
	TRY(read_btf(btf));
	TRY(find_sections(btf));
	TRY(index_types(btf));
	TRY(index_structs(btf));
	*ret = steal_pointer(&btf);
	return NULL;
}

void btf_close(struct btf *btf)
{
	if (!btf)
		return;
	if (btf->structs)
		hdestroy_r(btf->structs); /* a table that was never made is all zeros */
	free(btf->structs);
	free(btf->offsets);
	free(btf->data);
	free(btf);
}

/* The array has no length since Linux 6.5. */
struct cr_error *btf_offsets(const struct btf *btf, const struct btf_wanted *wanted, size_t count,
			     void *layout)
{
	struct btf_place place;

	for (size_t i = 0; i < count; i++) {
		TRY(btf_require(btf, wanted[i].root, wanted[i].path, &place));
		if (place.hop_count || place.bits)
			return error_new(CR_HOST, "Member %s of struct %s is another one here",
					 wanted[i].path, wanted[i].root);
		memcpy((uint8_t *)layout + wanted[i].offset, &place.offset, sizeof(uint32_t));
	}
	return NULL;
}

uint32_t btf_pid_numbers(const struct btf *btf)
{
	struct btf_place place;

	if (btf_locate(btf, btf_find(btf, BTF_KIND_STRUCT, "pid"), "numbers[0].nr", &place))
		return place.offset;
	return btf_struct_size(btf, "pid");
}
