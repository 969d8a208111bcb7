#include "layer_tree.h"

#include "error.h"
#include "util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <linux/limits.h>
#include <sys/xattr.h>

/* ACLs of directories wait in memory until the end; a layer that has more of them is no layer. */
enum { MAX_ACL_BYTES = 64 << 20 };

enum policy { POLICY_DROP, POLICY_KEEP, POLICY_ACL };

static bool begins(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* What may be set on a file of an image.
 *
 * Never an attribute by which overlayfs steers, in any namespace: redirect and metacopy lead to
 * other files, opaque and whiteout hide them. Never a label of the host's security modules
 * (security.selinux, ima, evm, apparmor) or of other file systems (system.nfs4_acl). What an
 * ordinary user may not set is left out without trying. */
static enum policy xattr_policy(const struct layer_tree *tree, const char *name)
{
    const char *dot = strchr(name, '.');

    if (!dot || begins(dot + 1, "overlay.") || begins(dot + 1, "fuseoverlayfs."))
        return POLICY_DROP;
    if (begins(name, "user."))
        return POLICY_KEEP;
    if (strcmp(name, "security.capability") == 0)
        return POLICY_KEEP;
    if (!tree_keeps_owners(tree))
        return POLICY_DROP;
    if (begins(name, "trusted."))
        return tree->options->rootless ? POLICY_DROP : POLICY_KEEP;
    if (strcmp(name, "system.posix_acl_access") == 0 ||
        strcmp(name, "system.posix_acl_default") == 0)
        return POLICY_ACL;
    return POLICY_DROP;
}

/* overlayfs reads trusted.overlay.*, which takes privilege to set, or with the option userxattr
 * user.overlay.* */
const char *xattr_overlay_name(const struct layer_tree *tree, const char *what)
{
    bool opaque = strcmp(what, "opaque") == 0;

    if (tree->options->rootless)
        return opaque ? "user.overlay.opaque" : "user.overlay.origin";
    return opaque ? "trusted.overlay.opaque" : "trusted.overlay.origin";
}

/* Set an attribute; one that this kind of file, this file system or this user cannot have is
 * counted and left out, as the other engines do: user.* on links and devices, capabilities without
 * privilege. */
int xattr_set(struct layer_tree *tree, const struct xattr_place *place, const char *name,
              const void *value, size_t size, struct pyrtc_error *error)
{
    int result;

    if (place->name) {
        char path[NAME_MAX + 32];
        snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", place->fd, place->name);
        result = lsetxattr(path, name, value, size, 0);
    } else {
        result = fsetxattr(place->fd, name, value, size, 0);
    }
    if (result == 0)
        return 0;
    if (errno == ENOTSUP || errno == EPERM) {
        tree->result->attributes_skipped++;
        return 0;
    }
    return pyrtc_fail(error, errno, "set an extended attribute", "%.100s of %zu bytes", name, size);
}

/* Keep an ACL of a directory for tree_finish(): a default ACL that is set at once would be handed
 * on to everything made in the directory. No value takes it away. */
int xattr_set_acl(struct layer_tree *tree, struct node *directory, bool is_default,
                  const void *value, size_t size, struct pyrtc_error *error)
{
    struct directory_attributes *attributes = &directory->attributes;
    uint8_t **kept = is_default ? &attributes->acl_default : &attributes->acl_access;
    size_t *kept_size = is_default ? &attributes->acl_default_size : &attributes->acl_access_size;

    free(*kept);
    *kept = NULL;
    tree->acl_bytes -= *kept_size;
    *kept_size = 0;
    if (!size)
        return 0;
    if (tree->acl_bytes + size > MAX_ACL_BYTES)
        return pyrtc_fail(error, 0, "keep an access control list", "more than %d bytes of them",
                          MAX_ACL_BYTES);
    *kept = malloc(size);
    if (!*kept)
        return pyrtc_fail(error, ENOMEM, "keep an access control list", "%zu bytes", size);
    memcpy(*kept, value, size);
    tree->acl_bytes += *kept_size = size;
    return 0;
}

static int apply_acl(struct layer_tree *tree, const struct xattr_place *place,
                     struct node *directory, bool is_default, const void *value, size_t size,
                     struct pyrtc_error *error)
{
    if (directory)
        return xattr_set_acl(tree, directory, is_default, value, size, error);
    if (is_default) {
        tree->result->attributes_skipped++; /* only directories have one */
        return 0;
    }
    return xattr_set(tree, place, "system.posix_acl_access", value, size, error);
}

static int apply_text_acl(struct layer_tree *tree, const char *text,
                          const struct xattr_place *place, struct node *directory, bool is_default,
                          struct pyrtc_error *error)
{
    owned uint8_t *value = NULL;
    size_t size;

    if (!text)
        return 0;
    int known = tar_acl_from_text(text, &value, &size, error);
    if (known < 0)
        return -1;
    if (!known || !tree_keeps_owners(tree)) {
        /* Names of another system, or an ordinary user's layer: the ids in it would be the host's.
         */
        tree->result->attributes_skipped++;
        return 0;
    }
    return apply_acl(tree, place, directory, is_default, value, size, error);
}

static int apply(struct layer_tree *tree, const struct tar_extensions *extensions,
                 const struct xattr_place *place, struct node *directory, struct pyrtc_error *error)
{
    for (size_t i = 0; i < extensions->attribute_count; i++) {
        const struct tar_attribute *attribute = &extensions->attributes[i];
        int result = 0;
        switch (xattr_policy(tree, attribute->name)) {
        case POLICY_DROP:
            tree->result->attributes_skipped++;
            break;
        case POLICY_ACL:
            result = apply_acl(tree, place, directory,
                               strcmp(attribute->name, "system.posix_acl_default") == 0,
                               attribute->value, attribute->size, error);
            break;
        case POLICY_KEEP:
            result =
                xattr_set(tree, place, attribute->name, attribute->value, attribute->size, error);
            if (directory)
                directory->has_xattrs = true;
            break;
        }
        if (result < 0)
            return -1;
    }
    if (apply_text_acl(tree, extensions->acl_access, place, directory, false, error) < 0)
        return -1;
    return apply_text_acl(tree, extensions->acl_default, place, directory, true, error);
}

int xattr_apply(struct layer_tree *tree, const struct tar_extensions *extensions,
                const struct xattr_place *place, struct pyrtc_error *error)
{
    return apply(tree, extensions, place, NULL, error);
}

int xattr_apply_directory(struct layer_tree *tree, const struct tar_extensions *extensions,
                          struct node *directory, int fd, struct pyrtc_error *error)
{
    struct xattr_place place = {.fd = fd};

    return apply(tree, extensions, &place, directory, error);
}

/* Names of all attributes, separated by NULs. */
static ssize_t list_names(int fd, char **names, struct pyrtc_error *error)
{
    *names = NULL;
    ssize_t size = flistxattr(fd, NULL, 0);
    if (size == 0 || (size < 0 && errno == ENOTSUP))
        return 0;
    if (size > 0) {
        *names = malloc((size_t)size);
        if (!*names)
            return pyrtc_fail(error, ENOMEM, "list extended attributes", "%zd bytes", size);
        size = flistxattr(fd, *names, (size_t)size);
    }
    return size < 0 ? FAIL(error, "list extended attributes") : size;
}

/* Copy what an image may have from a file of a lower layer; ACLs of a directory wait in its node.
 */
int xattr_copy(struct layer_tree *tree, int from, int to, struct node *directory,
               struct pyrtc_error *error)
{
    owned char *names = NULL;
    owned char *value = NULL;
    struct xattr_place place = {.fd = to};
    ssize_t size = list_names(from, &names, error);

    if (size <= 0)
        return (int)size;
    value = malloc(XATTR_SIZE_MAX);
    if (!value)
        return pyrtc_fail(error, ENOMEM, "copy extended attributes", "%s", "");
    for (const char *name = names; name < names + size; name += strlen(name) + 1) {
        enum policy policy = xattr_policy(tree, name);
        if (policy == POLICY_DROP)
            continue;
        ssize_t length = fgetxattr(from, name, value, XATTR_SIZE_MAX);
        if (length < 0)
            return FAIL(error, "read an extended attribute");
        if (directory && policy == POLICY_KEEP)
            directory->has_xattrs = true;
        int result =
            policy == POLICY_ACL
                ? apply_acl(tree, &place, directory, strcmp(name, "system.posix_acl_default") == 0,
                            value, (size_t)length, error)
                : xattr_set(tree, &place, name, value, (size_t)length, error);
        if (result < 0)
            return -1;
    }
    return 0;
}

/* Take away every attribute that xattr_copy() would copy. */
int xattr_clear(struct layer_tree *tree, int fd, struct pyrtc_error *error)
{
    owned char *names = NULL;
    ssize_t size = list_names(fd, &names, error);

    if (size < 0)
        return -1;
    for (const char *name = names; names && name < names + size; name += strlen(name) + 1) {
        bool acl = begins(name, "system.posix_acl_");
        if (!acl && xattr_policy(tree, name) == POLICY_DROP)
            continue;
        if (fremovexattr(fd, name) < 0)
            return FAIL(error, "remove an extended attribute");
    }
    return 0;
}
