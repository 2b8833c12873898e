/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/report/chart.h"

#include <math.h>
#include <stdlib.h>

#include "common/err.h"

enum {
    WIDTH = 560,
    NARROW = 380,
    HEIGHT = 250,
    LEFT = 50,
    RIGHT = 14,
    TOP = 10,
    BOTTOM = 30,
    POINTS = 320
};

struct point {
    double x, mean, low, high;
};

/* A line's points as they are drawn. */
struct drawn {
    const struct chart_line *line;
    struct point *points;
    size_t count;
    bool thinned;
};

struct axes {
    int right; /* px, of the plot */
    double x_end, y_low, y_high, y_step;
};

void chart_add(struct chart *chart, const struct chart_line *line)
{
    if (line->series->count > 0 && chart->line_count < CHART_LINES_MAX)
        chart->lines[chart->line_count++] = *line;
}

void html_text(FILE *stream, const char *text)
{
    for (const char *at = text; *at; at++) {
        switch (*at) {
        case '&':
            fputs("&amp;", stream);
            break;
        case '<':
            fputs("&lt;", stream);
            break;
        case '>':
            fputs("&gt;", stream);
            break;
        case '"':
            fputs("&quot;", stream);
            break;
        case '\'':
            fputs("&#39;", stream);
            break;
        default:
            if ((unsigned char)*at >= ' ')
                fputc(*at, stream);
        }
    }
}

/* Equal spans of points, so that no more than POINTS are left. */
static int thin(struct drawn *drawn, const struct chart_line *line)
{
    const struct series *series = line->series;
    size_t count = series->count < POINTS ? series->count : POINTS;
    *drawn = (struct drawn){.line = line, .count = count, .thinned = series->count > POINTS};
    drawn->points = malloc(count * sizeof *drawn->points);
    if (!drawn->points)
        return err_set(ERR_NOMEM, "out of memory for a chart");
    for (size_t i = 0; i < count; i++) {
        size_t begin = i * series->count / count, end = (i + 1) * series->count / count;
        struct point point = {0, 0, INFINITY, -INFINITY};
        for (size_t j = begin; j < end; j++) {
            point.x += series->x[j] / (double)(end - begin);
            point.mean += series->y[j] / (double)(end - begin);
            point.low = fmin(point.low, series->y[j]);
            point.high = fmax(point.high, series->y[j]);
        }
        drawn->points[i] = point;
    }
    return 0;
}

/* 1, 2 or 5 times a power of ten, so that about `wanted` of them make the span. */
static double nice_step(double span, double wanted)
{
    double raw = span / wanted, power = pow(10, floor(log10(raw))), ratio = raw / power;
    return power * (ratio <= 1 ? 1 : ratio <= 2 ? 2 : ratio <= 5 ? 5 : 10);
}

static struct axes find_axes(const struct chart *chart, const struct drawn *drawn, double x_end)
{
    double low = INFINITY, high = -INFINITY;
    for (int i = 0; i < chart->line_count; i++) {
        for (size_t j = 0; j < drawn[i].count; j++) {
            low = fmin(low, drawn[i].points[j].mean);
            high = fmax(high, drawn[i].points[j].mean);
        }
    }
    if (chart->from_zero)
        low = 0;
    high = fmax(high, chart->least_top);
    if (!(high > low))
        high = low + (low != 0 ? fabs(low) : 1);
    double step = nice_step(high - low, 5);
    return (struct axes){(chart->narrow ? NARROW : WIDTH) - RIGHT, x_end, floor(low / step) * step,
                         ceil(high / step - 1e-9) * step, step};
}

static double place_x(const struct axes *axes, double x)
{
    return LEFT + (axes->right - LEFT) * x / axes->x_end;
}

static double place_y(const struct axes *axes, double y)
{
    double share = (y - axes->y_low) / (axes->y_high - axes->y_low);
    double clipped = fmin(fmax(share, -0.02), 1.02); /* a band may reach past the lines */
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * clipped;
}

static void write_axes(FILE *stream, const struct axes *axes)
{
    int rows = (int)lround((axes->y_high - axes->y_low) / axes->y_step);
    for (int i = 0; i <= rows; i++) {
        double value = axes->y_low + i * axes->y_step, y = place_y(axes, value);
        fprintf(stream,
                "<line class='grid' x1='%d' x2='%d' y1='%.1f' y2='%.1f'></line>"
                "<text class='tick' x='%d' y='%.1f' text-anchor='end'>%.10g</text>",
                LEFT, axes->right, y, y, LEFT - 7, y + 3.5, fabs(value) < 1e-12 ? 0 : value);
    }
    double step =
        fmax(nice_step(axes->x_end, axes->right > NARROW ? 8 : 5), axes->x_end < 1 ? 0 : 1);
    for (int i = 0; i * step <= axes->x_end * (1 + 1e-9); i++) {
        double x = place_x(axes, i * step);
        fprintf(stream, "<text class='tick' x='%.1f' y='%d' text-anchor='middle'>%g</text>", x,
                HEIGHT - BOTTOM + 16, i * step);
    }
    fprintf(stream, "<text class='tick' x='%d' y='%d' text-anchor='end'>epoch</text>", axes->right,
            HEIGHT - 2);
}

static void write_band(FILE *stream, const struct drawn *drawn, const struct axes *axes)
{
    fprintf(stream, "<path class='band c%d' d='", drawn->line->colour);
    for (size_t i = 0; i < drawn->count; i++)
        fprintf(stream, "%c%.1f %.1f", i ? 'L' : 'M', place_x(axes, drawn->points[i].x),
                place_y(axes, drawn->points[i].high));
    for (size_t i = drawn->count; i-- > 0;)
        fprintf(stream, "L%.1f %.1f", place_x(axes, drawn->points[i].x),
                place_y(axes, drawn->points[i].low));
    fputs("Z'></path>", stream);
}

static void write_line(FILE *stream, const struct drawn *drawn, const struct axes *axes)
{
    enum { DOTS_MAX = 60 };
    const struct chart_line *line = drawn->line;
    fprintf(stream, "<path class='line c%d%s' d='", line->colour, line->second ? " second" : "");
    for (size_t i = 0; i < drawn->count; i++)
        fprintf(stream, "%c%.1f %.1f", i ? 'L' : 'M', place_x(axes, drawn->points[i].x),
                place_y(axes, drawn->points[i].mean));
    fputs("'></path>", stream);
    for (size_t i = 0; line->marked && drawn->count <= DOTS_MAX && i < drawn->count; i++)
        fprintf(stream, "<circle class='dot c%d' cx='%.1f' cy='%.1f' r='2.6'></circle>",
                line->colour, place_x(axes, drawn->points[i].x),
                place_y(axes, drawn->points[i].mean));
}

/* Every line has an entry, for the pointer; a dashed one that repeats a run's name is not shown. */
static void write_legend(FILE *stream, const struct chart *chart)
{
    fprintf(stream, "<ul class='legend'%s>", chart->line_count == 1 ? " hidden=''" : "");
    for (int i = 0; i < chart->line_count; i++) {
        const struct chart_line *line = &chart->lines[i];
        fprintf(stream, "<li class='c%d'%s><i class='key%s'></i>", line->colour,
                line->suffix ? " hidden=''" : "", line->second ? " second" : "");
        html_text(stream, line->label);
        if (line->suffix) {
            fputs(", ", stream);
            html_text(stream, line->suffix);
        }
        fputs("</li>", stream);
    }
    fputs("</ul>", stream);
}

/* The points for the pointer: numbers alone, so nothing in them can be markup. */
static void write_points(FILE *stream, const struct chart *chart, const struct drawn *drawn,
                         const struct axes *axes)
{
    fprintf(stream,
            "<script type='application/json'>{\"box\":[%d,%d,%d,%d],\"end\":%.10g,\"lines\":[",
            LEFT, TOP, axes->right, HEIGHT - BOTTOM, axes->x_end);
    for (int i = 0; i < chart->line_count; i++) {
        fprintf(stream, "%s[", i ? "," : "");
        for (size_t j = 0; j < drawn[i].count; j++)
            fprintf(stream, "%s[%.5g,%.4g]", j ? "," : "", drawn[i].points[j].x,
                    drawn[i].points[j].mean);
        fputs("]", stream);
    }
    fputs("]}</script>", stream);
}

static void write_figure(FILE *stream, const struct chart *chart, const struct drawn *drawn,
                         const struct axes *axes)
{
    fputs("<figure class='card' data-unit='", stream);
    html_text(stream, chart->unit);
    fputs("'><figcaption><h3>", stream);
    html_text(stream, chart->title);
    fputs("</h3><p>", stream);
    html_text(stream, chart->note);
    fputs("</p></figcaption>", stream);
    fprintf(stream, "<svg viewBox='0 0 %d %d' role='img' aria-label='", axes->right + RIGHT,
            HEIGHT);
    html_text(stream, chart->title);
    fputs("'>", stream);
    write_axes(stream, axes);
    for (int i = 0; i < chart->line_count; i++)
        if (drawn[i].thinned && drawn[i].line->band)
            write_band(stream, &drawn[i], axes);
    for (int i = 0; i < chart->line_count; i++)
        write_line(stream, &drawn[i], axes);
    fprintf(stream, "<line class='cursor' y1='%d' y2='%d'></line></svg>", TOP, HEIGHT - BOTTOM);
    write_legend(stream, chart);
    write_points(stream, chart, drawn, axes);
    fputs("<output hidden=''></output></figure>\n", stream);
}

int chart_write(FILE *stream, const struct chart *chart, double x_end)
{
    struct drawn drawn[CHART_LINES_MAX] = {{NULL}};
    int code = 0;
    if (chart->line_count == 0)
        return 0;
    for (int i = 0; i < chart->line_count && !code; i++)
        code = thin(&drawn[i], &chart->lines[i]);
    if (!code) {
        struct axes axes = find_axes(chart, drawn, x_end);
        write_figure(stream, chart, drawn, &axes);
    }
    for (int i = 0; i < chart->line_count; i++)
        free(drawn[i].points);
    return code;
}
