#include "http/h1_parse.h"

#include <llhttp.h>
#include <string.h>

#include "http/h1_target.h"

/* Refuses with a reason. */
static int refuse(const char **why, enum h1_refusal refusal, const char *text)
{
    *why = text;
    return refusal;
}

/* --- Scan ------------------------------------------------------------------------------------- */

static bool is_control(uint8_t byte)
{
    return (byte < ' ' && byte != '\t') || byte == 0x7f;
}

static bool any_control(const char *bytes, uint32_t len)
{
    bool any = false;
    for (uint32_t i = 0; i < len; i++)
        any |= is_control((uint8_t)bytes[i]);
    return any;
}

/* Is one of eight bytes below space, or DEL? TAB counts as well. The top bit of each byte answers
 * for it; a borrow can only wrong bytes beside one that is. */
static bool suspicious(const char *bytes)
{
    const uint64_t each = UINT64_C(0x0101010101010101);
    const uint64_t top = each * 0x80;
    uint64_t word;
    memcpy(&word, bytes, sizeof(word));
    uint64_t from_del = word ^ each * 0x7f;
    return (((word - each * ' ') & ~word) | ((from_del - each) & ~from_del)) & top;
}

/* Eight at a time: nearly all are clean. The last eight may overlap those before them. */
static bool has_control(const char *line, uint32_t len)
{
    enum { WORD = sizeof(uint64_t) };
    if (len < WORD)
        return any_control(line, len);
    for (uint32_t i = 0; i < len - WORD; i += WORD)
        if (suspicious(line + i) && any_control(line + i, WORD))
            return true;
    const char *last = line + len - WORD;
    return suspicious(last) && any_control(last, WORD);
}

/* A line without its CR LF. A TAB is fine in a field's value and nowhere in the first line. */
static const char *line_problem(const char *line, uint32_t len, bool first)
{
    if (has_control(line, len))
        return "a control character in the head";
    if (first && memchr(line, '\t', len))
        return "a tab in the first line";
    if (!first && len && (line[0] == ' ' || line[0] == '\t'))
        return "a line that begins with white space (obs-fold)";
    return NULL;
}

/* Can it be the first byte of a method, or of "HTTP/"? Tells TLS and other protocols at once. */
static bool first_byte_valid(char c, bool is_request)
{
    return is_request ? header_name_valid(slice_of(&c, 1)) : c == 'H';
}

/* Of a head that is not complete; its last byte may be the CR of a line that just fits. */
static int too_long(const struct h1_scan *scan, uint32_t len, const struct h1_limits *limits,
                    const char **why)
{
    if (!scan->lines && len && len - 1 > limits->line_max_bytes)
        return refuse(why, H1_LINE_TOO_LONG, "the first line is too long");
    if (len > limits->head_max_bytes)
        return refuse(why, H1_HEAD_TOO_LONG, "the head is too long");
    return 0;
}

/* Judges the line that ends with the LF at `end`. Returns the head's length if it was the empty
 * one, 0, or a refusal. */
static int end_line(struct h1_scan *scan, const char *bytes, uint32_t end,
                    const struct h1_limits *limits, const char **why)
{
    uint32_t len = end - scan->line_start;
    if (!len || bytes[end - 1] != '\r')
        return refuse(why, H1_MALFORMED, "a line that ends without CR LF");
    len--;
    const char *problem = line_problem(bytes + scan->line_start, len, scan->lines == 0);
    if (problem)
        return refuse(why, H1_MALFORMED, problem);
    if (!len)
        return scan->lines ? (int)end + 1
                           : refuse(why, H1_MALFORMED, "an empty line before the first one");
    if (!scan->lines && len > limits->line_max_bytes)
        return refuse(why, H1_LINE_TOO_LONG, "the first line is too long");
    if (scan->lines > limits->header_count_max)
        return refuse(why, H1_TOO_MANY_HEADERS, "too many header fields");
    scan->lines++;
    scan->line_start = end + 1;
    return 0;
}

int h1_head_scan(struct h1_scan *scan, const char *bytes, uint32_t len,
                 const struct h1_limits *limits, bool is_request, const char **why)
{
    if (len && !scan->scanned && !first_byte_valid(bytes[0], is_request))
        return refuse(why, H1_MALFORMED, "this is not HTTP");
    while (scan->scanned < len) {
        const char *from = bytes + scan->scanned;
        const char *lf = memchr(from, '\n', len - scan->scanned);
        if (!lf) {
            scan->scanned = len;
            break;
        }
        uint32_t end = (uint32_t)(lf - bytes);
        scan->scanned = end + 1;
        int result = end_line(scan, bytes, end, limits, why);
        if (result > 0 && (uint32_t)result > limits->head_max_bytes)
            return refuse(why, H1_HEAD_TOO_LONG, "the head is too long");
        if (result)
            return result;
    }
    return too_long(scan, len, limits, why);
}

/* --- Fields ----------------------------------------------------------------------------------- */

/* What llhttp's callbacks fill. */
struct fields {
    struct headers *headers;
    struct slice name;
    struct slice value;
    bool complete;
    int refusal;
    const char *why;
};

static int on_field(llhttp_t *parser, const char *at, size_t len)
{
    struct fields *fields = parser->data;
    fields->name = slice_of(at, len);
    fields->value = slice_of(at, 0);
    return 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t len)
{
    struct fields *fields = parser->data;
    fields->value = slice_of(at, len);
    return 0;
}

static int refuse_field(struct fields *fields, int refusal, const char *why)
{
    fields->refusal = refusal;
    fields->why = why;
    return -1;
}

/* llhttp lets some names and values through that RFC 9112 section 5 does not. Known names are
 * valid.
 */
static int on_value_complete(llhttp_t *parser)
{
    struct fields *fields = parser->data;
    struct slice name = fields->name;
    enum header_id id = header_id_of(name);
    bool valid = id != HEADER_OTHER || header_name_valid(name);
    if (!valid || name.ptr[-1] != '\n' || name.ptr[name.len] != ':')
        return refuse_field(fields, H1_MALFORMED, "a malformed header name");
    if (headers_add_id(fields->headers, id, name, slice_trim(fields->value)) != 0)
        return refuse_field(fields, H1_NO_MEMORY, "out of memory");
    return 0;
}

static int on_complete(llhttp_t *parser)
{
    struct fields *fields = parser->data;
    fields->complete = true;
    return 2; /* whatever follows is not llhttp's to read */
}

static const llhttp_settings_t settings = {
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_headers_complete = on_complete,
};

/* Runs llhttp over the head; what it sees of the method is `stand_in` where it knows the real one
 * not. */
static int read_fields(struct headers *headers, llhttp_type_t type, struct slice stand_in,
                       struct slice rest, const char **why)
{
    llhttp_t parser;
    struct fields fields = {.headers = headers, .why = "malformed header fields"};
    llhttp_init(&parser, type, &settings);
    parser.data = &fields;
    if (!stand_in.len || llhttp_execute(&parser, stand_in.ptr, stand_in.len) == HPE_OK)
        llhttp_execute(&parser, rest.ptr, rest.len);
    if (fields.complete && !fields.refusal)
        return 0;
    return refuse(why, fields.refusal ? (enum h1_refusal)fields.refusal : H1_MALFORMED,
                  fields.refusal ? fields.why : llhttp_get_error_reason(&parser));
}

/* --- Framing ---------------------------------------------------------------------------------- */

static int parse_length(struct slice text, uint64_t *length)
{
    uint64_t value = 0;
    if (!text.len || text.len > 18)
        return -1;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return -1;
        value = value * 10 + (unsigned)(text.ptr[i] - '0');
    }
    *length = value;
    return 0;
}

/* RFC 9112 section 6: the framing that the fields declare; more than one way to read them is
 * refused. */
static int declared_framing(const struct headers *headers, enum http_version version,
                            struct h1_head *result, const char **why)
{
    const struct header *coding = headers_find_id(headers, HEADER_TRANSFER_ENCODING, NULL);
    const struct header *length = headers_find_id(headers, HEADER_CONTENT_LENGTH, NULL);
    result->framing = H1_BODY_NONE;
    if (coding) {
        if (version == HTTP_1_0)
            return refuse(why, H1_MALFORMED, "Transfer-Encoding in HTTP/1.0");
        if (length)
            return refuse(why, H1_MALFORMED, "Transfer-Encoding and Content-Length");
        if (headers_find_id(headers, HEADER_TRANSFER_ENCODING, coding) ||
            !slice_equal_nocase(coding->value, SLICE("chunked")))
            return refuse(why, H1_BAD_TRANSFER_CODING, "a transfer coding other than chunked");
        result->framing = H1_BODY_CHUNKED;
        return 0;
    }
    if (!length)
        return 0;
    if (headers_find_id(headers, HEADER_CONTENT_LENGTH, length))
        return refuse(why, H1_MALFORMED, "more than one Content-Length");
    if (parse_length(length->value, &result->content_length) != 0)
        return refuse(why, H1_MALFORMED, "a malformed Content-Length");
    result->framing = H1_BODY_LENGTH;
    return 0;
}

static bool has_other_options(const struct headers *headers)
{
    for (struct header *header = NULL;
         (header = headers_find_id(headers, HEADER_CONNECTION, header));)
        if (!slice_equal_nocase(header->value, SLICE("keep-alive")) &&
            !slice_equal_nocase(header->value, SLICE("close")) &&
            !slice_equal_nocase(header->value, SLICE("upgrade")))
            return true;
    return false;
}

/* RFC 9112 section 9.3. */
static void read_persistence(const struct headers *headers, enum http_version version,
                             struct h1_head *result)
{
    result->keep_alive = version == HTTP_1_1;
    result->has_connection_options = false;
    if (!headers_find_id(headers, HEADER_CONNECTION, NULL))
        return;
    result->has_connection_options = has_other_options(headers);
    if (headers_has_token(headers, HEADER_CONNECTION, SLICE("close")))
        result->keep_alive = false;
    else if (headers_has_token(headers, HEADER_CONNECTION, SLICE("keep-alive")))
        result->keep_alive = true;
}

/* --- Requests --------------------------------------------------------------------------------- */

/* The parts of "METHOD target HTTP/1.1", each separated by exactly one space. */
struct request_line {
    struct slice method;
    struct slice target;
    struct slice version;
};

static bool split_request_line(struct slice line, struct request_line *parts)
{
    const char *first = memchr(line.ptr, ' ', line.len);
    const char *last = memrchr(line.ptr, ' ', line.len);
    if (!first || first == last)
        return false;
    parts->method = slice_of(line.ptr, (size_t)(first - line.ptr));
    parts->target = slice_of(first + 1, (size_t)(last - first) - 1);
    parts->version = slice_of(last + 1, line.len - (size_t)(last - line.ptr) - 1);
    return header_name_valid(parts->method) && parts->target.len &&
           !memchr(parts->target.ptr, ' ', parts->target.len);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int parse_version(struct slice text, enum http_version *version, const char **why)
{
    if (text.len != 8 || memcmp(text.ptr, "HTTP/", 5) != 0 || !is_digit(text.ptr[5]) ||
        text.ptr[6] != '.' || !is_digit(text.ptr[7]))
        return refuse(why, H1_MALFORMED, "a malformed HTTP version");
    if (text.ptr[5] != '1')
        return refuse(why, text.ptr[5] > '1' ? H1_BAD_VERSION : H1_MALFORMED,
                      "an HTTP version other than 1.0 and 1.1");
    if (text.ptr[7] > '1')
        return refuse(why, H1_MALFORMED, "an HTTP version other than 1.0 and 1.1");
    *version = text.ptr[7] == '1' ? HTTP_1_1 : HTTP_1_0;
    return 0;
}

/* RFC 9112 section 3.2: one valid Host, which an absolute target overrides, for layers as well as
 * for the origin. */
static int read_host(struct request *request, struct slice target_authority, const char **why)
{
    const struct header *host = headers_find_id(&request->headers, HEADER_HOST, NULL);
    if (!host && request->version == HTTP_1_1)
        return refuse(why, H1_MALFORMED, "no Host");
    if (host && headers_find_id(&request->headers, HEADER_HOST, host))
        return refuse(why, H1_MALFORMED, "more than one Host");
    if (host && !h1_authority_valid(host->value))
        return refuse(why, H1_MALFORMED, "an invalid Host");
    if (host)
        request->authority = host->value;
    if (!target_authority.len)
        return 0;
    request->authority = target_authority;
    if (headers_set(&request->headers, SLICE("Host"), target_authority) != 0)
        return refuse(why, H1_NO_MEMORY, "out of memory");
    return 0;
}

static void read_expectations(struct request *request)
{
    if (request->version != HTTP_1_1)
        return;
    request->expects_continue =
        slice_equal_nocase(headers_get_id(&request->headers, HEADER_EXPECT), SLICE("100-continue"));
    request->wants_upgrade =
        headers_find_id(&request->headers, HEADER_UPGRADE, NULL) &&
        headers_has_token(&request->headers, HEADER_CONNECTION, SLICE("upgrade"));
}

static struct slice first_line(const char *head, uint32_t len)
{
    const char *cr = memchr(head, '\r', len);
    return slice_of(head, cr ? (size_t)(cr - head) : len);
}

int h1_parse_request(struct request *request, const char *head, uint32_t len,
                     const struct h1_limits *limits, struct h1_head *result, const char **why)
{
    struct request_line line;
    (void)limits; /* the scan has applied them */
    *result = (struct h1_head){0};
    if (!split_request_line(first_line(head, len), &line))
        return refuse(why, H1_MALFORMED, "a malformed request line");
    int code = parse_version(line.version, &request->version, why);
    if (code < 0)
        return code;
    request->method_name = line.method;
    request->method = http_method_of(line.method);

    struct slice authority = {NULL, 0};
    if (h1_target_parse(request, line.target, &authority, why) != 0)
        return H1_MALFORMED;
    /* llhttp knows the registered methods only; ours is checked, so it gets a common one to read.
     */
    bool connect = request->method == METHOD_CONNECT;
    struct slice rest = slice_of(head + line.method.len, len - line.method.len);
    code = read_fields(&request->headers, HTTP_REQUEST, connect ? SLICE("CONNECT") : SLICE("GET"),
                       rest, why);
    if (code == 0)
        code = declared_framing(&request->headers, request->version, result, why);
    if (code == 0)
        code = read_host(request, authority, why);
    if (code < 0)
        return code;
    read_persistence(&request->headers, request->version, result);
    read_expectations(request);
    request->keep_alive = result->keep_alive;
    return 0;
}

/* --- Responses -------------------------------------------------------------------------------- */

static int parse_status_line(struct slice line, enum http_version *version, uint16_t *status,
                             const char **why)
{
    if (line.len < 12 || line.ptr[8] != ' ' || !is_digit(line.ptr[9]) || !is_digit(line.ptr[10]) ||
        !is_digit(line.ptr[11]) || (line.len > 12 && line.ptr[12] != ' '))
        return refuse(why, H1_MALFORMED, "a malformed status line");
    int code = parse_version(slice_of(line.ptr, 8), version, why);
    *status =
        (uint16_t)((line.ptr[9] - '0') * 100 + (line.ptr[10] - '0') * 10 + line.ptr[11] - '0');
    if (code == 0 && (*status < 100 || *status > 599))
        return refuse(why, H1_MALFORMED, "a status outside 100 to 599");
    return code;
}

int h1_parse_response(struct response *response, enum http_method method, const char *head,
                      uint32_t len, const struct h1_limits *limits, struct h1_head *result,
                      const char **why)
{
    enum http_version version;
    (void)limits; /* the scan has applied them */
    *result = (struct h1_head){0};
    int code = parse_status_line(first_line(head, len), &version, &response->status, why);
    if (code == 0)
        code = read_fields(&response->headers, HTTP_RESPONSE, SLICE(""), slice_of(head, len), why);
    if (code < 0)
        return code;
    code = declared_framing(&response->headers, version, result, why);
    if (code < 0)
        return code;
    read_persistence(&response->headers, version, result);
    if (http_response_bodyless(method, response->status)) {
        result->framing = H1_BODY_NONE;
    } else if (result->framing == H1_BODY_NONE) {
        result->framing = H1_BODY_UNTIL_CLOSE;
        result->keep_alive = false;
    }
    return 0;
}

/* --- Connection ------------------------------------------------------------------------------- */

void h1_remove_listed(struct headers *headers)
{
    static const uint64_t kept = UINT64_C(1) << HEADER_HOST | UINT64_C(1) << HEADER_CONTENT_LENGTH |
                                 UINT64_C(1) << HEADER_TRANSFER_ENCODING |
                                 UINT64_C(1) << HEADER_UPGRADE | UINT64_C(1) << HEADER_TE |
                                 UINT64_C(1) << HEADER_EXPECT;
    headers_remove_listed(headers, HEADER_CONNECTION, kept);
}
