/*
 * What an attendant knows. Both kinds of file are replaced as a whole and never changed, and are
 * read again when another one has their name.
 *
 * "dns", in the container's directory:
 *
 *   pyrtc-dns 1
 *   forward                             only if other names may be asked for
 *   server 4 0a000001 53 0              address in hexadecimal digits, port, scope; in order
 *   network 4f0c...                     an id: a directory beside the others' that holds "names"
 *   allowed                             only these names may be asked for; the last of such lines
 *   example.com below                   those that end with ".example.com"; in the order of their
 *   example.org exact                   bytes, small letters
 *
 * "names", of a network: a first line "pyrtc-names 1 NAME" with the network's name, then lines in
 * the order of their bytes, so that a name is found without reading all of them. A name is in small
 * letters and without a dot at its end:
 *
 *   2.0.18.172.in-addr.arpa p web
 *   web 4 ac120002
 *
 * The files are mapped, so that what several containers know of a network is in memory once.
 */
#include "parts.h"

#include <fcntl.h>
#include <linux/mman.h>
#include <sys/stat.h>

#define MOST (64 << 20) /* bytes of a file; more is none of ours */

static const char dns_head[] = "pyrtc-dns 1\n", names_head[] = "pyrtc-names 1 ";

static void forget(struct mapped *file)
{
    if (file->text)
        sys_call(__NR_munmap, file->text, file->length);
    *file = (struct mapped){0};
}

static bool same(const struct mapped *file, const struct stat *about)
{
    return file->text && file->device == about->st_dev && file->inode == about->st_ino &&
           file->size == (uint64_t)about->st_size && file->seconds == about->st_mtim.tv_sec &&
           file->nanoseconds == about->st_mtim.tv_nsec;
}

/* Returns whether the file is another one than before. What cannot be read is not there. */
static bool refresh(struct mapped *file, int directory, const char *path)
{
    struct stat about;
    bool known = file->text;

    if (sys_call(__NR_newfstatat, directory, path, &about, AT_SYMLINK_NOFOLLOW) < 0) {
        forget(file);
        return known;
    }
    if (same(file, &about))
        return false;
    forget(file);
    int fd = (int)sys_call(__NR_openat, directory, path,
                           O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd < 0)
        return known;
    if (sys_call(__NR_fstat, fd, &about) == 0 && (about.st_mode & S_IFMT) == S_IFREG &&
        about.st_size > 0 && about.st_size <= MOST) {
        long address = sys_call(__NR_mmap, NULL, about.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (address > 0 || address < -4095)
            *file = (struct mapped){
                about.st_dev,           (uint64_t)about.st_ino, (uint64_t)about.st_size,
                about.st_mtim.tv_sec,   about.st_mtim.tv_nsec,  (const char *)address,
                (uint64_t)about.st_size};
    }
    close_fd(&fd);
    return true;
}

/* ---- words of a line */

struct words {
    const char *at, *end;
};

/* The end of the line that begins here; beyond its newline, where it has one. */
const char *names_line_end(const char *at, const char *end)
{
    while (at < end && *at != '\n')
        at++;
    return at < end ? at + 1 : end;
}

/* The next word of a line, or NULL; words are parted by one space. */
static const char *next_word(struct words *words, uint32_t *length)
{
    const char *word = words->at;

    while (words->at < words->end && *words->at != ' ' && *words->at != '\n')
        words->at++;
    *length = (uint32_t)(words->at - word);
    if (words->at < words->end)
        words->at++;
    return *length ? word : NULL;
}

static bool is_word(const char *word, uint32_t length, const char *text)
{
    if (!word || text_length(text) != length)
        return false;
    for (uint32_t i = 0; i < length; i++)
        if (word[i] != text[i])
            return false;
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool hex_bytes(const char *word, uint32_t length, uint8_t *bytes, uint32_t count)
{
    if (!word || length != 2 * count)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        int high = hex_digit(word[2 * i]), low = hex_digit(word[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool number(struct words *words, uint32_t most, uint32_t *value)
{
    uint32_t length;
    const char *word = next_word(words, &length);

    *value = 0;
    if (!word || length > 9)
        return false;
    for (uint32_t i = 0; i < length; i++) {
        if (word[i] < '0' || word[i] > '9')
            return false;
        *value = *value * 10 + (uint32_t)(word[i] - '0');
    }
    return *value <= most;
}

/* ---- the container's file */

static void take_server(struct names *names, struct words words)
{
    uint32_t family_length, length, port, scope;
    uint8_t bytes[16];
    const char *family = next_word(&words, &family_length);
    const char *address = next_word(&words, &length);
    bool six = is_word(family, family_length, "6");

    if (names->server_count == MAX_SERVERS || (!six && !is_word(family, family_length, "4")) ||
        !hex_bytes(address, length, bytes, six ? 16 : 4) || !number(&words, 65535, &port) ||
        !number(&words, 999999999, &scope))
        return;
    struct server *server = &names->servers[names->server_count++];
    *server =
        (struct server){.size = six ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in)};
    if (six) {
        server->address.sin6_family = AF_INET6;
        server->address.sin6_port = (uint16_t)(port >> 8 | port << 8);
        server->address.sin6_scope_id = scope;
        memcpy(&server->address.sin6_addr, bytes, 16);
    } else {
        struct sockaddr_in *four = (struct sockaddr_in *)&server->address;
        four->sin_family = AF_INET;
        four->sin_port = (uint16_t)(port >> 8 | port << 8);
        memcpy(&four->sin_addr, bytes, 4);
    }
}

/* The id becomes part of a path, and may be nothing but an id. */
static void take_network(struct names *names, struct words words)
{
    static const char rest[] = "/names";
    uint32_t length;
    const char *id = next_word(&words, &length);

    if (!id || length > 64 || names->network_count == MAX_NETWORKS)
        return;
    for (uint32_t i = 0; i < length; i++)
        if (hex_digit(id[i]) < 0)
            return;
    struct network *network = &names->networks[names->network_count++];
    memcpy(network->path, id, length);
    memcpy(network->path + length, rest, sizeof(rest));
}

static bool begins(const char *text, const char *end, const char *head)
{
    while (*head && text < end && *text == *head)
        text++, head++;
    return !*head;
}

static void read_dns(struct names *names)
{
    const char *text = names->file.text;

    for (uint32_t i = 0; i < names->network_count; i++)
        forget(&names->networks[i].file);
    names->forward = names->limited = false;
    names->allowed = (struct found){NULL, NULL};
    names->server_count = names->network_count = 0;
    if (!text)
        return;
    const char *end = text + names->file.length;
    if (!begins(text, end, dns_head))
        return;
    for (const char *line = text + sizeof(dns_head) - 1; line < end;) {
        const char *next = names_line_end(line, end);
        struct words words = {line, next};
        uint32_t length;
        const char *word = next_word(&words, &length);
        if (is_word(word, length, "forward"))
            names->forward = true;
        else if (is_word(word, length, "server"))
            take_server(names, words);
        else if (is_word(word, length, "network"))
            take_network(names, words);
        line = next;
        if (is_word(word, length, "allowed")) {
            names->limited = true;
            names->allowed = (struct found){line, end};
            break;
        }
    }
}

void names_refresh(struct names *names)
{
    if (names->directory < 0)
        return;
    if (refresh(&names->file, names->directory, "dns"))
        read_dns(names);
    for (uint32_t i = 0; i < names->network_count; i++)
        refresh(&names->networks[i].file, names->networks_directory, names->networks[i].path);
}

/* ---- the names of a network */

/* How the name of a line compares with this one. */
static int compare(const char *line, const char *end, const char *name, uint32_t length)
{
    uint32_t i = 0;

    for (; i < length; i++) {
        unsigned char byte = line + i < end ? (unsigned char)line[i] : ' ';
        if (byte == '\n')
            byte = ' '; /* less than whatever a name is made of */
        if (byte != (unsigned char)name[i])
            return byte < (unsigned char)name[i] ? -1 : 1;
    }
    return line + i < end && line[i] != ' ' && line[i] != '\n';
}

/* The first line whose name is not less. */
static const char *first_line(const char *low, const char *high, const char *name, uint32_t length)
{
    const char *end = high;

    while (low < high) {
        const char *line = low + (high - low) / 2;
        while (line > low && line[-1] != '\n')
            line--;
        if (compare(line, end, name, length) < 0)
            low = names_line_end(line, high);
        else
            high = line;
    }
    return low;
}

/* A name may have the network's behind it, as "web.backend". */
static uint32_t without_network(const char *name, const char *network, const char *network_end)
{
    uint32_t length = (uint32_t)text_length(name), size = (uint32_t)(network_end - network);

    if (!size || length < size + 2 || name[length - size - 1] != '.')
        return 0;
    for (uint32_t i = 0; i < size; i++) {
        char c = network[i];
        if (c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        if (name[length - size + i] != c)
            return 0;
    }
    return length - size - 1;
}

struct found names_search(struct found lines, const char *name, uint32_t length)
{
    const char *line = first_line(lines.line, lines.end, name, length), *last = line;

    while (last < lines.end && compare(last, lines.end, name, length) == 0)
        last = names_line_end(last, lines.end);
    return (struct found){line, last};
}

struct found names_find(const struct network *network, const char *name)
{
    const char *text = network->file.text;
    uint32_t length = (uint32_t)text_length(name);

    if (!text)
        return (struct found){NULL, NULL};
    const char *end = text + network->file.length;
    if (!length || !begins(text, end, names_head))
        return (struct found){NULL, NULL};
    const char *first = names_line_end(text, end), *own = text + sizeof(names_head) - 1;
    const char *own_end = first > own && first[-1] == '\n' ? first - 1 : first;
    for (int round = 0; round < 2 && length; round++) {
        struct found found = names_search((struct found){first, end}, name, length);
        if (found.line < found.end)
            return found;
        length = without_network(name, own, own_end);
    }
    return (struct found){NULL, NULL};
}

struct entry names_entry(const char **line, const char *end)
{
    const char *next = names_line_end(*line, end);
    struct words words = {*line, next};
    struct entry entry = {0};
    uint32_t length;

    *line = next;
    next_word(&words, &length);
    const char *type = next_word(&words, &length);
    if (!type || length != 1)
        return entry;
    const char *value = next_word(&words, &length);
    if ((*type == '4' && hex_bytes(value, length, entry.bytes, 4)) ||
        (*type == '6' && hex_bytes(value, length, entry.bytes, 16)))
        entry.type = *type;
    if (*type == 'p' && value) {
        entry.type = *type;
        entry.text = value;
        entry.length = length;
    }
    return entry;
}
