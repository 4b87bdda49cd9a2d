#include "json.h"

#include <stdlib.h>
#include <string.h>

static span_t skip(span_t text, size_t count) {
  return (span_t){text.at + count, text.len - count};
}

static span_t skip_blank(span_t text) {
  while (text.len > 0 && strchr(" \t\r\n", *text.at) != NULL)
    text = skip(text, 1);
  return text;
}

// The length of the string that the text begins with, its quotes included.
static size_t string_len(span_t text) {
  size_t at = 1;
  while (at < text.len && text.at[at] != '"')
    at += text.at[at] == '\\' ? 2 : 1;
  return at < text.len ? at + 1 : text.len;
}

// The length of the value that the text begins with.
static size_t value_len(span_t text) {
  size_t at = 0;
  size_t depth = 0;
  while (at < text.len) {
    char c = text.at[at];
    if (c == '"') {
      at += string_len(skip(text, at));
      if (depth == 0)
        return at;
      continue;
    }
    if (c == '{' || c == '[') {
      depth += 1;
    } else if (c == '}' || c == ']') {
      if (depth == 0)
        return at;
      depth -= 1;
      if (depth == 0)
        return at + 1;
    } else if (depth == 0 && strchr(", \t\r\n:", c) != NULL) {
      return at;
    }
    at += 1;
  }
  return at;
}

// Takes the value that comes next in an object or array, past the sign before it.
static bool take_value(span_t *rest, span_t *value) {
  *rest = skip_blank(*rest);
  if (rest->len > 0 && strchr("{[,:", *rest->at) != NULL)
    *rest = skip_blank(skip(*rest, 1));
  size_t len = value_len(*rest);
  *value = (span_t){rest->at, len};
  *rest = skip(*rest, len);
  return len > 0;
}

span_t json_member(span_t object, const char *name) {
  span_t rest = skip_blank(object);
  span_t key, value;
  if (rest.len == 0 || *rest.at != '{')
    return (span_t){NULL, 0};
  while (take_value(&rest, &key) && take_value(&rest, &value)) {
    if (key.len == strlen(name) + 2 && memcmp(key.at + 1, name, key.len - 2) == 0)
      return value;
  }
  return (span_t){NULL, 0};
}

bool json_next(span_t *rest, span_t *element) {
  span_t text = skip_blank(*rest);
  // An element stands after the opening bracket or after a comma; after the last one stands neither.
  if (text.len == 0 || (*text.at != '[' && *text.at != ','))
    return false;
  return take_value(rest, element);
}

bool json_whole(span_t value, uint64_t *number) {
  *number = 0;
  for (size_t i = 0; i < value.len; i++) {
    char c = value.at[i];
    if (c < '0' || c > '9' || __builtin_mul_overflow(*number, (uint64_t)10, number) ||
        __builtin_add_overflow(*number, (uint64_t)(c - '0'), number))
      return false;
  }
  return value.len > 0;
}

void text_add(text_t *text, const char *bytes, size_t len) {
  if (text->room - text->len < len) {
    text->room = (text->room + len) * 2;
    text->at = realloc(text->at, text->room);
    // The gateway bounds memory: a call that runs out of it ends here, as a trap.
    if (text->at == NULL)
      abort();
  }
  memcpy(text->at + text->len, bytes, len);
  text->len += len;
}

void text_add_string(text_t *text, const char *string) { text_add(text, string, strlen(string)); }

void text_add_whole(text_t *text, uint64_t number) {
  char digits[20];
  size_t at = sizeof digits;
  do {
    digits[--at] = (char)('0' + number % 10);
    number /= 10;
  } while (number > 0);
  text_add(text, digits + at, sizeof digits - at);
}

void text_add_escaped(text_t *text, span_t string) {
  if (string.len >= 2)
    text_add(text, string.at + 1, string.len - 2);
}
