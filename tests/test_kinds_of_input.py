"""The ways in which a tool like this one was publicly reported to be wrong without a word, and the tests of each.

A kind is held by its tests, not by the input that was reported: each needs three variants at least, and what is listed
here has to be there. Files are below tests/.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FOLDER = "pipeline/data/datasets/folder"
LABELS = f"{FOLDER}/meaning/test_settling.py"
HOSTILE = f"{FOLDER}/test_hostile.py"
ARRANGEMENT = f"{FOLDER}/test_arrangement.py"

# Kind -> file -> what tests of it are called, as many of them as say the most.
KINDS: dict[str, dict[str, list[str]]] = {
    "masks of 0 and 255": {
        LABELS: [
            "test_0_and_255_or_1_are_two_classes",
            "test_void_stays_void_beside_both_classes",
            "test_0_255_here_and_0_1_there_is_asked",
            "test_three_classes_in_0_and_255_are_asked",
            "test_255_for_a_class_that_does_not_occur_otherwise",
        ],
        HOSTILE: [
            "test_a_background_that_would_be_255_is_asked_about",
            "test_nearly_0_and_255_are_no_masks",
            "test_resized_masks_are_refused",
        ],
    },
    "a split without a labelled pixel": {
        "pipeline/data/preparing/test_audit.py": [
            "test_a_split_without_a_labelled_pixel_is_refused",
            "test_some_images_without_a_labelled_pixel_are_counted",
            "test_a_training_split_of_one_class_is_refused",
        ],
        LABELS: ["test_labels_that_are_255_throughout_are_none"],
        HOSTILE: [
            "test_everything_void_by_transparency",
            "test_everything_void_by_colour",
            "test_void_values_that_are_classes",
        ],
        "pipeline/evaluation/test_evaluation.py": ["test_a_split_without_a_labelled_pixel_has_no_miou"],
    },
    "data that changed after it was prepared": {
        "pipeline/data/preparing/test_watching.py": [
            "test_every_change_gives_another_hash",
            "test_content_sees_what_names_sizes_and_times_hide",
        ],
        "pipeline/stages/test_watch.py": ["test_dvc_prepares_again_what_changed_and_nothing_else"],
        "pipeline/data/reading/test_batches.py": [
            "test_a_file_that_is_not_the_prepared_one_is_refused",
            "test_every_file_is_hashed_once_and_again_when_it_changes",
        ],
        f"{FOLDER}/test_dataset.py": ["test_classes_that_changed_since_prepare"],
        f"{FOLDER}/test_masks.py": ["test_a_mask_that_changed_is_refused"],
    },
    "experiments that set parameters": {
        "test_dvc_experiments.py": [
            "test_what_dvc_writes_for_a_section_is_what_was_set",
            "test_all_sections_are_set_in_one_experiment",
            "test_the_real_stages_run_in_a_queue",
        ],
    },
    "names that are not UTF-8": {
        ARRANGEMENT: ["test_undecodable_names_are_taken", "test_forms_of_unicode_are_one_name"],
        HOSTILE: [
            "test_a_list_of_undecodable_names",
            "test_a_list_in_the_other_form_of_unicode",
            "test_names_with_line_breaks_blanks_and_marks",
            "test_classes_txt_of_another_encoding",
        ],
        "serving/images/test_listing.py": [
            "test_names_in_both_ways_of_writing_accents_and_undecodable_ones_are_all_taken"
        ],
        "serving/inference/test_sources.py": ["test_a_list_may_hold_folders_undecodable_names_and_what_is_gone"],
        "serving/test_hostile.py": ["test_a_terminal_of_another_encoding_is_told_all_the_same"],
    },
    "palettes that differ from file to file": {
        LABELS: [
            "test_numbered_anew_in_every_file_is_read_by_colour",
            "test_numbered_anew_without_colours_in_classes_txt",
            "test_a_palette_in_another_order_than_classes_txt_is_asked",
            "test_a_colour_at_two_indices_of_different_palettes",
        ],
        HOSTILE: [
            "test_palettes_among_plain_numbers",
            "test_palettes_among_colours",
            "test_palettes_of_two_programs_without_colours_in_classes_txt",
        ],
    },
    "images in deeper folders": {
        ARRANGEMENT: [
            "test_deeper_folders_are_taken",
            "test_what_is_left_out_is_named_with_the_reason",
        ],
        f"{FOLDER}/test_splits.py": ["test_a_folder_beside_those_of_the_splits"],
        HOSTILE: [
            "test_images_in_folders_of_which_the_labels_know_nothing",
            "test_equal_names_in_two_folders_keep_their_own_labels",
        ],
        "serving/images/test_listing.py": ["test_folders_are_walked_in_order_without_hidden_files_and_results"],
    },
    "models from elsewhere": {
        "serving/engines/foreign/test_described.py": [
            "test_a_float_input_without_mean_and_std_is_refused_with_the_usual_ones",
            "test_an_output_whose_last_axis_matches_the_classes_is_not_read_as_nchw",
            "test_several_foregrounds_are_masks_of_their_own_and_one_with_a_background",
        ],
        "serving/engines/test_tensors.py": [
            "test_a_single_logit_that_never_leaves_0_to_1_is_taken_for_a_probability_and_refused",
            "test_outputs_that_cannot_be_laid_over_the_images_are_refused",
        ],
    },
    "links": {
        ARRANGEMENT: ["test_linked_folders_and_two_links_to_one_file", "test_a_link_back_ends"],
        HOSTILE: [
            "test_a_link_that_leads_nowhere",
            "test_a_label_that_is_a_link_to_another_ones_label_is_that_label",
            "test_one_folder_linked_twice_is_two_folders_and_shared_pictures_are_told",
            "test_a_linked_root",
        ],
        "serving/images/test_listing.py": [
            "test_links_are_followed_and_two_names_of_one_file_are_two_images",
            "test_links_that_lead_nowhere_or_back_are_named",
            "test_links_to_and_fro_come_to_an_end",
        ],
    },
    "results among the images": {
        "serving/infer/test_names.py": [
            "test_no_image_is_overwritten_by_its_mask",
            "test_results_inside_the_folder_are_not_read_again",
            "test_results_beside_the_images_are_not_read_by_the_next_run",
            "test_results_of_another_run_are_named",
        ],
        "serving/inference/test_planning.py": [
            "test_no_image_is_overwritten_through_whatever_name",
            "test_an_image_that_merely_has_a_namesake_is_read",
        ],
    },
    "a predictor in several threads": {
        "serving/engines/runtimes/test_threads.py": [
            "test_every_thread_gets_its_own_masks",
            "test_every_thread_gets_its_own_masks_from_tensorrt",
            "test_timings_are_those_of_the_thread_that_called",
            "test_a_closed_predictor_says_so",
        ],
    },
    "trainings that were interrupted": {
        "benchmarks/test_kills.py": ["test_a_killed_training_ends_with_the_same_bytes"],
        "pipeline/training/faults/test_signals.py": ["test_a_stop_at_any_moment_is_gone_on_from_to_the_same_bytes"],
        "pipeline/training/resuming/test_store.py": [
            "test_a_kill_between_the_two_files_leaves_no_checkpoint",
            "test_two_processes_do_not_train_one_branch",
            "test_a_damaged_one_is_set_aside_with_a_warning",
        ],
    },
    "exports of labelling tools": {
        "pipeline/data/importing/test_refusals.py": [
            "test_polygons_of_one_annotation_make_no_hole_and_one_on_top_does",
            "test_an_export_on_which_nothing_is_drawn",
            "test_labels_that_lie_elsewhere_are_not_taken_for_images_without_any",
            "test_several_exports_in_one_folder",
        ],
        "pipeline/data/importing/test_import.py": [
            "test_polygons_runs_holes_crossings_crowds_and_boxes",
            "test_labels_drawn_on_the_stored_image_are_turned_with_it",
        ],
    },
}


@cache
def names_in(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    found = (node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return frozenset(name for name in found if name.startswith("test_"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_three_variants_and_they_are_there(kind: str) -> None:
    assert sum(map(len, KINDS[kind].values())) >= 3
    missing = {file: sorted(set(names) - names_in(file)) for file, names in KINDS[kind].items()}
    assert not any(missing.values()), missing
