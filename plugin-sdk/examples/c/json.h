// Just enough JSON to read a payload and to write a body: values are found in the text where they stand,
// and nothing is built of them. The gateway hands over valid JSON only, so this does not check it again.

#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A part of a text. A value that is not there has no bytes.
typedef struct {
  const char *at;
  size_t len;
} span_t;

// The value of an object's member; empty when the value is no object or has no such member.
span_t json_member(span_t object, const char *name);

// Steps through an array: gives the next element, and false when there is none. `rest` begins as the
// array's text.
bool json_next(span_t *rest, span_t *element);

// A whole number that is not negative; false for anything else and for what does not fit.
bool json_whole(span_t value, uint64_t *number);

// A text that grows.
typedef struct {
  char *at;
  size_t len;
  size_t room;
} text_t;

void text_add(text_t *text, const char *bytes, size_t len);
void text_add_string(text_t *text, const char *string);
void text_add_whole(text_t *text, uint64_t number);

// Adds a string value's characters with their escapes as they are written, without the quotes: what may
// stand in one JSON string may stand in another.
void text_add_escaped(text_t *text, span_t string);

#endif
